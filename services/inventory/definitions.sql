-- Named queries for what people define. Kinds and names come as values, never as SQL.

-- name: lock_definitions
-- One writer at a time: a decision rests on definitions other than the one it changes.
select pg_advisory_xact_lock(hashtext('vireo.definitions'));

-- name: outcome
select outcome from definition_outcomes where operation = $1;

-- name: keep_outcome
insert into definition_outcomes (operation, outcome) values ($1, $2);

-- name: newest
select kind, name, version, data from definitions
where kind = $1 and name = $2
order by version desc
limit 1;

-- name: count_live
select count(*) from newest_definitions where kind = $1 and data is not null;

-- name: add_version
insert into definitions (kind, name, version, data, operation, actor, at)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: add_to_outbox
insert into config_outbox (kind, name, version) values ($1, $2, $3)
on conflict (kind, name) do update set version = excluded.version;

-- name: users_among_definitions
-- $1 is the kind of the definition that is named, and the field that names it. A document with \u0000 in
-- some text cannot be taken apart: there the field is looked for as it is written.
select kind, name from newest_definitions
where
    kind = any($3::text[])
    and case
        when position('\u0000' in data::text) > 0
            then position(format('"%s":"%s"', $1::text, $2::text) in data::text) > 0
        else data ->> $1::text = $2::text
    end
order by kind, name
limit $4;

-- name: users_among_vms
select name from vms
where
    not deleted
    and case
        when position('\u0000' in spec::text) > 0
            then position(format('"%s":"%s"', $1::text, $2::text) in spec::text) > 0
        else spec ->> $1::text = $2::text
    end
order by id
limit $3;

-- name: outbox
select kind, name from config_outbox order by kind, name limit $1;

-- name: take_from_outbox
delete from config_outbox where kind = $1 and name = $2 and version <= $3;

-- name: all_newest
select kind, name, data from newest_definitions order by kind, name;

-- name: live_definitions
select kind, name, version, data, operation::text, actor, at from newest_definitions
where kind = $1 and data is not null and ($2::text is null or name > $2)
order by name
limit $3;

-- name: definition_version
select kind, name, version, data, operation::text, actor, at from definitions
where kind = $1 and name = $2 and ($3::integer is null or version = $3)
order by version desc
limit 1;

-- name: definition_versions
select kind, name, version, data, operation::text, actor, at from definitions
where kind = $1 and name = $2 and ($3::integer is null or version < $3)
order by version desc
limit $4;
