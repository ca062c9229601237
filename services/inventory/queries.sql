-- The inventory's queries. Writing happens in one transaction per batch, under the lock of the ledger's
-- row: lock_ledger, known_events, gaps, load_*, COPY, save_*, advance_ledger. Reading happens outside, one
-- statement an answer.

-- name: lock_ledger
-- The end of the ledger; whoever else records waits here until we have committed. No two transactions have
-- one time: by it, it is known which rows were stored together.
select
    epoch, number, position, hash, received_at,
    greatest(received_at + interval '1 microsecond', clock_timestamp()) as now
from ledgers
where stream = $1
for update;

-- name: advance_ledger
update ledgers
set epoch = $2, number = $3, position = $4, hash = $5, received_at = $6
where stream = $1;

-- name: known_events
-- Which of these ids are stored.
select id::text from event_keys where id = any($1::uuid[]);

-- name: gaps_between
-- Those not filled.
select first, last, state
from gaps
where stream = $1 and state <> 'filled' and last >= $2 and first <= $3
order by first;

-- name: forget_gaps
-- To be noted again in pieces.
delete from gaps where stream = $1 and first = any($2::bigint[]);

-- name: note_gaps
insert into gaps (stream, first, last, state, found_at, settled_at)
select
    $1, first, last, state, clock_timestamp(),
    case when state = 'open' then null else clock_timestamp() end
from unnest($2::bigint[], $3::bigint[], $4::text[]) as given (first, last, state);

-- name: load_vms
select
    id::text, site, name, host, state, power, generation, ending, deleted, cpus, memory_mib,
    disk_gib, unsized, labels, spec, guest, placement, operation::text, problem, created_at,
    updated_at, position, state_position, guest_position
from vms
where id = any($1::uuid[]);

-- name: load_operations
select
    id::text, command, kind, target, phase, actor, progress, detail, host, problem, placement,
    created_at, updated_at, position
from operations
where id = any($1::uuid[]);

-- name: load_hosts
select
    name, site, state, facts, config, config_generation, labels, registered_at, updated_at,
    state_position, facts_position
from hosts
where name = any($1::text[]);

-- name: save_vms
insert into vms (
    id, site, name, host, state, power, generation, ending, deleted, cpus, memory_mib, disk_gib,
    unsized, labels, spec, guest, placement, operation, problem, created_at, updated_at, position,
    state_position, guest_position
)
select * from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::boolean[], $9::boolean[], $10::integer[], $11::bigint[], $12::bigint[], $13::jsonb[],
    $14::jsonb[], $15::json[], $16::json[], $17::json[], $18::uuid[], $19::text[],
    $20::timestamptz[], $21::timestamptz[], $22::bigint[], $23::bigint[], $24::bigint[]
)
on conflict (id) do update set
    site = excluded.site, name = excluded.name, host = excluded.host, state = excluded.state,
    power = excluded.power, generation = excluded.generation, ending = excluded.ending,
    deleted = excluded.deleted, cpus = excluded.cpus, memory_mib = excluded.memory_mib,
    disk_gib = excluded.disk_gib, unsized = excluded.unsized, labels = excluded.labels,
    spec = excluded.spec, guest = excluded.guest, placement = excluded.placement,
    operation = excluded.operation, problem = excluded.problem, created_at = excluded.created_at,
    updated_at = excluded.updated_at, position = excluded.position,
    state_position = excluded.state_position, guest_position = excluded.guest_position;

-- name: save_operations
insert into operations (
    id, command, kind, target, phase, actor, progress, detail, host, problem, placement, created_at,
    updated_at, position
)
select * from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::double precision[], $8::text[], $9::text[], $10::json[], $11::json[], $12::timestamptz[],
    $13::timestamptz[], $14::bigint[]
)
on conflict (id) do update set
    command = excluded.command, kind = excluded.kind, target = excluded.target,
    phase = excluded.phase, actor = excluded.actor, progress = excluded.progress,
    detail = excluded.detail, host = excluded.host, problem = excluded.problem,
    placement = excluded.placement, created_at = excluded.created_at,
    updated_at = excluded.updated_at, position = excluded.position;

-- name: save_hosts
insert into hosts (
    name, site, state, facts, config, config_generation, labels, registered_at, updated_at,
    state_position, facts_position
)
select * from unnest(
    $1::text[], $2::text[], $3::text[], $4::json[], $5::json[], $6::bigint[], $7::jsonb[],
    $8::timestamptz[], $9::timestamptz[], $10::bigint[], $11::bigint[]
)
on conflict (name) do update set
    site = excluded.site, state = excluded.state, facts = excluded.facts, config = excluded.config,
    config_generation = excluded.config_generation, labels = excluded.labels,
    registered_at = excluded.registered_at, updated_at = excluded.updated_at,
    state_position = excluded.state_position, facts_position = excluded.facts_position;

-- name: vm_by_id
-- Deleted ones too: what was, stays known under its id.
select
    id::text, site, spec, state, power, host, generation, created_at, updated_at, guest, placement,
    operation::text, problem
from vms
where id = $1::uuid and spec is not null;

-- name: vm_by_name
-- A name belongs to the VM that lives; the newest, should there be two for a moment.
select
    id::text, site, spec, state, power, host, generation, created_at, updated_at, guest, placement,
    operation::text, problem
from vms
where name = $1 and not deleted and spec is not null
order by vms.id desc
limit 1;

-- name: list_vms
-- Newest first, by the column: `id` alone would be the text that is given back, which no index has.
-- Deleted ones only where that state is asked for.
select
    id::text, site, spec, state, power, host, generation, created_at, updated_at, guest, placement,
    operation::text, problem
from vms
where spec is not null
    and ($1::uuid is null or id < $1)
    and ($2::text is null or host = $2)
    and ($3::text is null or name = $3)
    and ($4::jsonb is null or labels @> $4)
    and ($5::text is null or state = $5)
    and (deleted = ($5 is not distinct from 'deleted'))
order by vms.id desc
limit $6;

-- name: host_by_name
select name, site, state, facts, config, registered_at, updated_at
from hosts
where name = $1 and facts is not null;

-- name: list_hosts
-- By name.
select name, site, state, facts, config, registered_at, updated_at
from hosts
where facts is not null
    and ($1::text is null or name > $1)
    and ($2::text is null or state = $2)
    and ($3::jsonb is null or labels @> $3)
order by name
limit $4;

-- name: reserved
-- What the VMs on these hosts take; `unsized` are the images whose own size their disks have.
select
    host,
    count(*) as vms,
    sum(cpus)::bigint as cpus,
    sum(memory_mib)::bigint as memory_mib,
    sum(disk_gib)::bigint as disk_gib,
    coalesce(json_agg(unsized) filter (where unsized <> '[]'), '[]') as unsized
from vms
where host = any($1::text[]) and not deleted and spec is not null
group by host;

-- name: operations_by_id
-- Each with its events in order, at most $2.
select
    id::text, command, kind, target, phase, actor, created_at, updated_at, progress, detail, host,
    problem, placement,
    coalesce(
        (
            select vms.name from vms
            where vms.id = case when kind = 'vm' and target ~ '^[0-9a-f-]{36}$' then target::uuid end
        ),
        -- A VM that was refused never came to be: its name stands in what was asked for.
        case when command = 'vm.create' then (
            select convert_from(envelope, 'UTF8')::json #>> '{data,request,spec,name}'
            from events
            where events.operation = operations.id and type = 'vireo.operation.accepted.v1'
            limit 1
        ) end
    ) as name,
    array(
        select envelope from events where operation = operations.id order by position limit $2
    ) as events
from operations
where id = any($1::uuid[]);

-- name: list_operations
-- Newest first; without placements, which belong to the one operation that is looked at.
select
    id::text, command, kind, target, phase, actor, created_at, updated_at, progress, detail, host,
    problem, null::json as placement,
    coalesce(
        (
            select vms.name from vms
            where vms.id = case when kind = 'vm' and target ~ '^[0-9a-f-]{36}$' then target::uuid end
        ),
        -- A VM that was refused never came to be: its name stands in what was asked for.
        case when command = 'vm.create' then (
            select convert_from(envelope, 'UTF8')::json #>> '{data,request,spec,name}'
            from events
            where events.operation = operations.id and type = 'vireo.operation.accepted.v1'
            limit 1
        ) end
    ) as name
from operations
where ($1::uuid is null or id < $1)
    and ($2::text is null or target = $2)
    and ($3::text is null or phase = $3)
    and ($4::text is null or actor = $4)
order by operations.id desc
limit $5;

-- name: phases
-- Of the operations that somebody waits for. One whose later events came first is not known yet: it
-- has no command until its acceptance, or what names its VM, is there too.
select id::text, phase from operations where id = any($1::uuid[]) and command <> '';

-- name: list_events
-- As they were stored.
select number, envelope
from events
where ($1::bigint is null or number > $1)
    and ($2::uuid is null or operation = $2)
    and ($3::uuid is null or vm = $3)
    and ($4::text is null or host = $4)
    and ($5::text is null or actor = $5)
    and ($6::text[] is null or type = any($6))
    and ($7::timestamptz is null or number > last_row_before('EVENTS', $7))
    and ($8::timestamptz is null or number <= last_row_before('EVENTS', $8))
order by number
limit $9;

-- name: list_events_back
-- The newest first.
select number, envelope
from events
where ($1::bigint is null or number < $1)
    and ($2::uuid is null or operation = $2)
    and ($3::uuid is null or vm = $3)
    and ($4::text is null or host = $4)
    and ($5::text is null or actor = $5)
    and ($6::text[] is null or type = any($6))
    and ($7::timestamptz is null or number > last_row_before('EVENTS', $7))
    and ($8::timestamptz is null or number <= last_row_before('EVENTS', $8))
order by number desc
limit $9;

-- name: effects_of_operations
-- All that belongs to these operations, as it was stored.
select number, envelope from events where operation = any($1::uuid[]) order by number limit $2;

-- name: effects_of_causes
-- What these brought about in other operations, or in none.
select number, envelope
from events
where cause = any($1::uuid[]) and cause is distinct from operation
order by number
limit $2;

-- name: operation_facts
select id::text, command, kind, target, phase, actor, created_at
from operations
where id = any($1::uuid[]);

-- name: earlier_events
-- By their place in the stream, between two places.
select position, envelope
from events
where stream = $1 and position > $2 and position < $3
order by position
limit $4;

-- name: plan_for_values
-- A list's filters are optional: the plan that fits all of them fits none.
set local plan_cache_mode = force_custom_plan;

-- name: tagged_plan_for_values
-- The same, and the tag of what a list is made of.
select
    string_agg(tag::text, '.' order by name) as tag,
    set_config('plan_cache_mode', 'force_custom_plan', true)
from tags
where name = any($1);

-- name: tags
select name, tag::text from tags;

-- name: ledger_rows
-- As they are hashed, from the row after $2 on.
select
    stream, number, position, received_at, operation::text, vm::text, host, envelope, previous, hash,
    id::text, time, type, source, subject, cause::text, actor
from events
where stream = $1 and number > $2
order by number, received_at
limit $3;

-- name: ledger_head
select number, hash, received_at from ledgers where stream = $1;

-- name: lock_months
-- One inventory at a time: two that make the same table fail.
select pg_advisory_xact_lock(hashtext('vireo.months'));

-- name: make_months
-- This month's table and those of as many months ahead as $1.
select count(*) filter (where made) from (
    select make_events_month(
        'events', (date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead))::date
    ) as made
    from generate_series(0, $1::int) as ahead
) as months;

-- name: condition
select
    (select number from ledgers where stream = $1) as rows,
    (select coalesce(sum(last - first + 1), 0)::bigint from gaps
        where stream = $1 and state = 'open' and found_at < now() - make_interval(secs => $2)) as open,
    (select coalesce(sum(last - first + 1), 0)::bigint from gaps
        where stream = $1 and state = 'missing') as missing,
    (select count(*) from events_outside) as outside,
    (select max(day) from seals where stream = $1) as sealed_through;

-- name: epoch
select epoch from ledgers where stream = $1;

-- name: open_gaps
-- Those that did not close by themselves in $2 seconds.
select first, last, found_at
from gaps
where stream = $1 and state = 'open' and found_at < now() - make_interval(secs => $2)
order by first
limit 100;

-- name: list_gaps
select first, last, state, found_at, settled_at
from gaps
where stream = $1 and ($2::bigint is null or first > $2) and ($3 or state <> 'filled')
order by first
limit $4;

-- name: list_seals
select day, statement, signature, key, last
from seals
where stream = $1 and ($2::bigint is null or last > $2)
order by last
limit $3;

-- name: seal_of_day
select day, first, last, statement, signature, key, blocks
from seals
where stream = $1 and day = $2;

-- name: last_seal
select day, first, last, statement, signature, key, blocks
from seals
where stream = $1
order by day desc
limit 1;

-- name: day_of_row
select received_at from events where stream = $1 and number = $2 limit 1;

-- name: rows_of_day
-- The first and the last row stored from $2 up to $3.
select min(number) as first, max(number) as last, count(*) as rows
from events
where stream = $1 and received_at >= $2 and received_at < $3;

-- name: hashes
select number, hash from events where stream = $1 and number between $2 and $3 order by number, received_at;

-- name: save_seal
insert into seals (stream, day, first, last, statement, signature, key, blocks)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict do nothing;

-- name: export_rows
-- With what is hashed with them; found by position where they are found by operation or VM.
select
    number, position, received_at, operation::text, vm::text, host, envelope, previous, hash
from events
where stream = $1
    and ($2::bigint is null or number > $2)
    and ($3::uuid is null or operation = $3)
    and ($4::uuid is null or vm = $4)
    and ($5::timestamptz is null or received_at >= $5)
    and ($6::timestamptz is null or received_at < $6)
order by number
limit $7;

-- name: last_before
-- The last row that was stored before $2: where a check from then on begins.
select last_row_before($1, $2);

-- name: archives
-- What was put away, oldest first.
select position, statement, signature, key from archives where stream = $1 order by last;

-- name: oldest_row
select number, received_at, previous, clock_timestamp() as now
from events
where stream = $1
order by number
limit 1;

-- name: row_hash
select hash, received_at from events where stream = $1 and number = $2;

-- name: seals_of_rows
-- The sealed days from row $2 to row $3.
select day, first, last, statement, signature, key, blocks
from seals
where stream = $1 and first >= $2 and last <= $3
order by day;

-- name: numbered_rows
select
    number, position, received_at, operation::text, vm::text, host, envelope, previous, hash
from events
where stream = $1 and number between $2 and $3
order by number, received_at;

-- name: month_rows
select first, last, rows from events_month_rows($1);

-- name: furthest_place
select max(position) from events where stream = $1 and received_at >= $2 and received_at < $3;

-- name: limits
-- Of this transaction, in milliseconds: for a statement, and for waiting for a lock.
select set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true);

-- name: keep_assignments
-- Of VMs that live, from row $1 to row $2.
insert into kept_assignments
select number, vm, envelope
from events
where number between $1 and $2 and type in ('vireo.vm.scheduled.v1', 'vireo.vm.reassigned.v1')
    and vm in (select id from vms where not deleted);

-- name: forget_assignments
-- Of VMs that live no more.
delete from kept_assignments where vm in (select id from vms where deleted);

-- name: save_archive
insert into archives (stream, last, position, statement, signature, key)
values ($1, $2, $3, $4, $5, $6);

-- name: drop_month
select drop_events_month($1);

-- name: next_events
-- From the row after $2 up to $3, in the order of the ledger.
select number, position, received_at, operation::text, vm::text, host, envelope
from events
where stream = $1 and number > $2 and number <= $3
order by number, received_at
limit $4;

-- name: next_events_of
-- The same, of some: apart, since the plan that fits all filters would read the others to their end.
select number, position, received_at, operation::text, vm::text, host, envelope
from events
where stream = $1 and number > $2 and number <= $3
    and ($5::uuid is null or vm = $5)
    and ($6::text is null or host = $6)
    and ($7::uuid is null or operation = $7)
    and ($8::text[] is null or type = any($8))
order by number, received_at
limit $4;

-- name: rows_of_time
-- The row after which, and the last one, that was stored from $2 up to $3.
select last_row_before($1, $2) as number, last_row_before($1, $3) as last;

-- name: rows_through
-- Rows with these numbers are in files: whatever is here in their place was put in.
select number, position, id::text from events where stream = $1 and number <= $2 order by number limit $3;
