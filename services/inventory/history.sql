-- The inventory's history: what is remembered with each batch of events, and how it was at a time. The
-- queries named `past_…` are those of the same name in `queries.sql`, at the time that is their last value.

-- name: remember
-- Versions of what a batch has changed, from the rows that were saved before.
-- $1 since, $2 number; VMs: $3 changed, $4 with other documents, $5 new, $6 gone; operations: $7 changed,
-- $8 new, $9 with another placement; $10 hosts.
with documents as (
    insert into vm_documents
    select
        id, $1::timestamptz, $2::bigint, site, name, cpus, memory_mib, disk_gib, unsized, labels, spec, guest, placement
    from vms where id = any($4::uuid[])
),
lives as (
    insert into vm_lives
    select id, $1::timestamptz, case when id = any($6::uuid[]) then $1::timestamptz else 'infinity' end
    from unnest($5::uuid[]) as id
),
deaths as (
    update vm_lives set died = $1::timestamptz where id = any($6::uuid[])
),
of_hosts as (
    insert into host_versions
    select name, $1::timestamptz, $2::bigint, site, state, facts, config, labels, registered_at, updated_at
    from hosts where name = any($10::text[])
),
of_operations as (
    insert into operation_versions
    select
        id, $1::timestamptz, $2::bigint, id = any($8::uuid[]), command, kind, target, phase, actor, progress, detail, host,
        problem, case when id = any($9::uuid[]) then placement end, created_at, updated_at
    from operations where id = any($7::uuid[])
)
insert into vm_versions
select
    id, $1::timestamptz, $2::bigint, host, state, power, generation, deleted, operation, problem, created_at, updated_at
from vms where id = any($3::uuid[]);

-- name: history_span
select begins, clock_timestamp() as now from history;

-- name: past_vm_by_id
select
    id::text, site, spec, state, power, host, generation, created_at, updated_at, guest, placement,
    operation::text, problem
from vms_at($2)
where id = $1::uuid;

-- name: past_vm_by_name
select
    id::text, site, spec, state, power, host, generation, created_at, updated_at, guest, placement,
    operation::text, problem
from vms_at($2) as past
where id in (select id from vm_documents where name = $1) and name = $1 and not deleted
order by past.id desc
limit 1;

-- name: past_list_vms
-- Where nothing is asked of the versions themselves, only those of the page are looked up.
select
    id::text, site, spec, state, power, host, generation, created_at, updated_at, guest, placement,
    operation::text, problem
from vms_at($7) as past
where id in (
        select id from vm_lives
        where case
            when $5 is not distinct from 'deleted' then died <= $7 and born <= $7
            else tstzrange(born, died) @> $7::timestamptz
        end
        and ($1::uuid is null or id < $1)
        order by id desc
        limit case
            when $2::text is null and $3::text is null and $4::jsonb is null
                and ($5::text is null or $5 = 'deleted') then $6::bigint
        end
    )
    and ($2::text is null or host = $2)
    and ($3::text is null or name = $3)
    and ($4::jsonb is null or labels @> $4)
    and ($5::text is null or state = $5)
order by past.id desc
limit $6;

-- name: past_host_by_name
select name, site, state, facts, config, registered_at, updated_at
from hosts_at($2)
where name = $1;

-- name: past_list_hosts
select name, site, state, facts, config, registered_at, updated_at
from hosts_at($5)
where ($1::text is null or name > $1)
    and ($2::text is null or state = $2)
    and ($3::jsonb is null or labels @> $3)
order by name
limit $4;

-- name: past_reserved
select
    host,
    count(*) as vms,
    sum(cpus)::bigint as cpus,
    sum(memory_mib)::bigint as memory_mib,
    sum(disk_gib)::bigint as disk_gib,
    coalesce(json_agg(unsized) filter (where unsized <> '[]'), '[]') as unsized
from vms_at($2)
where
    id in (select id from vm_lives where tstzrange(born, died) @> $2::timestamptz)
    and host = any($1::text[])
group by host;

-- name: past_operations_by_id
select
    id::text, command, kind, target, phase, actor, created_at, updated_at, progress, detail, host,
    problem,
    (
        select placement from operation_versions as placed
        where placed.id = version.id and since <= $3 and placement is not null
        order by since desc, number desc
        limit 1
    ) as placement,
    coalesce(
        (
            select name from vm_documents
            where
                vm_documents.id
                = case when kind = 'vm' and target ~ '^[0-9a-f-]{36}$' then target::uuid end
                and since <= $3
            order by since desc, number desc
            limit 1
        ),
        case when command = 'vm.create' then (
            select convert_from(envelope, 'UTF8')::json #>> '{data,request,spec,name}'
            from events
            where events.operation = version.id and type = 'vireo.operation.accepted.v1'
                and received_at <= $3
            limit 1
        ) end
    ) as name,
    array(
        select envelope from events
        where operation = version.id and received_at <= $3
        order by position
        limit $2
    ) as events
from unnest($1::uuid[]) as asked
cross join lateral (
    select * from operation_versions
    where operation_versions.id = asked and since <= $3
    order by since desc, number desc
    limit 1
) as version;

-- name: past_list_operations
select
    births.id::text, command, kind, target, phase, actor, created_at, updated_at, progress, detail,
    host, problem, null::json as placement,
    coalesce(
        (
            select name from vm_documents
            where
                vm_documents.id
                = case when kind = 'vm' and target ~ '^[0-9a-f-]{36}$' then target::uuid end
                and since <= $6
            order by since desc, number desc
            limit 1
        ),
        case when command = 'vm.create' then (
            select convert_from(envelope, 'UTF8')::json #>> '{data,request,spec,name}'
            from events
            where events.operation = births.id and type = 'vireo.operation.accepted.v1'
                and received_at <= $6
            limit 1
        ) end
    ) as name
from (select id, since as born from operation_versions where first) as births
cross join lateral (
    select command, kind, target, phase, actor, progress, detail, host, problem, created_at, updated_at
    from operation_versions
    where operation_versions.id = births.id and since <= $6
    order by since desc, number desc
    limit 1
) as version
where births.born <= $6
    and ($1::uuid is null or births.id < $1)
    and ($2::text is null or target = $2)
    and ($3::text is null or phase = $3)
    and ($4::text is null or actor = $4)
order by births.id desc
limit $5;

-- name: changed_between
-- What is not as it was at $1, or was not meanwhile until $2; after kind $3 and id $4.
select kind, id
from (
    select 'vm' as kind, id::text as id from vm_versions where since > $1 and since <= $2
    union
    select 'host', name from host_versions where since > $1 and since <= $2
    union
    select kind, name from definitions where at > $1 and at <= $2
) as changed
where $3::text is null or (kind collate "C", id collate "C") > ($3, $4)
order by kind collate "C", id collate "C"
limit $5;

-- name: vms_then
select
    id::text, site, name, spec, state, power, host, guest, problem, labels, deleted
from vms_at($2)
where id = any($1::uuid[]);

-- name: hosts_then
select name, site, state, facts, config from hosts_at($2) where name = any($1::text[]);

-- name: definitions_then
select distinct on (kind, name) kind, name, version, data
from definitions
where name = any($1::text[]) and at <= $2
order by kind, name, version desc;

-- name: operations_between
-- Which operations had to do with these VMs ($3) and hosts ($4), stored after $1 and until $2.
select concerned.kind, concerned.id, operations.id::text as operation, command, actor, concerned.at
from (
    select 'vm' as kind, vm::text as id, operation, min(received_at) as at
    from events
    where
        vm = any($3::uuid[])
        and operation is not null
        and number > last_row_before('EVENTS', $1::timestamptz + interval '1 microsecond')
        and number <= last_row_before('EVENTS', $2::timestamptz + interval '1 microsecond')
    group by vm, operation
    union all
    select 'host', host, operation, min(received_at)
    from events
    where
        host = any($4::text[])
        and operation is not null
        and type like 'vireo.host.%'
        and number > last_row_before('EVENTS', $1::timestamptz + interval '1 microsecond')
        and number <= last_row_before('EVENTS', $2::timestamptz + interval '1 microsecond')
    group by host, operation
) as concerned
join operations on operations.id = concerned.operation
order by concerned.at, operations.id;

-- name: definitions_between
select
    definitions.kind, definitions.name as id, operation::text, command, definitions.actor, at
from definitions
join operations on operations.id = definitions.operation
where definitions.name = any($3::text[]) and at > $1 and at <= $2
order by at, version;
