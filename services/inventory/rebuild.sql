-- Making the tables anew that follow from the events. What reads and writes their rows stands in
-- `queries.sql`: with `second_set_first` it means those of the second set.

-- name: lock_rebuilds
-- One at a time.
select pg_advisory_xact_lock(hashtext('vireo.rebuild'));

-- name: outcome
select outcome from rebuilds where operation = $1;

-- name: begin
-- Forgets what was begun by others and not finished.
delete from rebuilds where outcome is null;

-- name: make_second_set
select make_second_set();

-- name: enter
insert into rebuilds (operation) values ($1);

-- name: progress
-- Whoever else makes them anew waits here.
select number from rebuilds where operation = $1 and outcome is null for update;

-- name: advance
update rebuilds set number = $2 where operation = $1;

-- name: keep_outcome
update rebuilds set outcome = $2 where operation = $1;

-- name: second_set_first
set local search_path = rebuild, public;

-- name: live_set_only
set local search_path = public;

-- name: patience
-- Of the statements of this transaction, in milliseconds.
select set_config('statement_timeout', $1, true);

-- name: next_events
select number, position, envelope
from events
where stream = $1 and number > $2
order by number, received_at
limit $3;

-- name: rows
select number from ledgers where stream = $1;

-- name: index_second_set
select index_second_set();

-- name: analyze_vms
analyze rebuild.vms;

-- name: analyze_operations
analyze rebuild.operations;

-- name: analyze_hosts
analyze rebuild.hosts;

-- name: take_second_set
select take_second_set();

-- name: drop_second_set
select drop_second_set();

-- What a set of tables is: the SHA-256 over the SHA-256 of each row's text, in the order of the keys.

-- name: hash_vms
select
    count(*) as rows,
    sha256(coalesce(string_agg(sha256(convert_to(vms::text, 'UTF8')), '' order by id), '')) as hash
from vms;

-- name: hash_operations
select
    count(*) as rows,
    sha256(
        coalesce(string_agg(sha256(convert_to(operations::text, 'UTF8')), '' order by id), '')
    ) as hash
from operations;

-- name: hash_hosts
select
    count(*) as rows,
    sha256(coalesce(string_agg(sha256(convert_to(hosts::text, 'UTF8')), '' order by name), '')) as hash
from hosts;

-- name: differing_vms
-- The keys of rows that are not the same in both sets, or stand in one alone; at most $1.
select coalesce(live.id, made.id)::text as key, count(*) over () as count
from public.vms as live full join rebuild.vms as made on live.id = made.id
where live::text is distinct from made::text
order by key
limit $1;

-- name: differing_operations
select coalesce(live.id, made.id)::text as key, count(*) over () as count
from public.operations as live full join rebuild.operations as made on live.id = made.id
where live::text is distinct from made::text
order by key
limit $1;

-- name: differing_hosts
select coalesce(live.name, made.name) as key, count(*) over () as count
from public.hosts as live full join rebuild.hosts as made on live.name = made.name
where live::text is distinct from made::text
order by key
limit $1;
