-- The record becomes a ledger: `events` is cut into months, every row rests on the hash of the one
-- before, and what was stored under which id and at which place is known for ever, whatever becomes of
-- old months. Rows are copied into new tables and these take the old ones' place at the very end, so
-- that readers go on meanwhile. A writer of an older version finds its `streams` gone and tries again
-- until it is replaced.

-- Whoever records waits here until all of this is committed.
select epoch from streams for update;

-- One row per stream; its lock lets one writer project at a time. `epoch` counts how often the stream was
-- found to have been made anew. The rest is the last row of the ledger: how many there are, its hash, when
-- it was stored; and `position`, the furthest place in the stream that was accounted for.
create table ledgers (
    stream text primary key,
    epoch integer not null check (epoch >= 0),
    number bigint not null check (number >= 0),
    position bigint not null,
    hash bytea not null check (length(hash) = 32),
    received_at timestamptz not null
);

-- Each id once and each place in the stream once, over all months: a unique index of a partitioned table
-- cannot say that, because it has to hold the month.
create table event_keys (
    id uuid primary key,
    stream text not null,
    position bigint not null,
    unique (position, stream)
);

-- Every event for ever, in the order in which it was stored (`number`, without a hole). `position` is the
-- epoch (high bits) and the sequence in the stream (low 48 bits): the order in which it happened to the
-- stream. `envelope` are the bytes that were published; `schemas/ledger.py` says what is hashed.
create table ledger_events (
    stream text not null,
    number bigint not null,
    position bigint not null,
    id uuid not null,
    time timestamptz not null,
    type text not null,
    source text not null,
    subject text,
    operation uuid,
    cause uuid,
    actor text,
    vm uuid,
    host text,
    received_at timestamptz not null,
    previous bytea not null,
    hash bytea not null,
    envelope bytea not null,
    primary key (number, stream, received_at)
) partition by range (received_at);

create index events_in_stream on ledger_events (position);
create index events_of_operation on ledger_events (operation, position) where operation is not null;
create index events_of_vm on ledger_events (vm, position) where vm is not null;
create index events_of_host on ledger_events (host, position) where host is not null;
create index events_at on ledger_events using brin (time);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the record is only ever added to: % on % is refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

-- A month of `events`, with the guards that a partition does not take over from its parent. Returns
-- whether it was made now. Attached rather than made as a partition: readers need not wait for that.
create function make_events_month(parent regclass, month date) returns boolean
language plpgsql as $$
declare
    name text := 'events_' || to_char(month, 'YYYY_MM');
begin
    if to_regclass(name) is not null then
        return false;
    end if;
    execute format(
        'create table %I (like %s including defaults including constraints)', name, parent
    );
    execute format(
        'alter table %s attach partition %I for values from (%L) to (%L)',
        parent, name,
        to_char(month, 'YYYY-MM-DD') || ' 00:00:00+00',
        to_char(month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00'
    );
    perform guard_record(name::regclass);
    return true;
end
$$;

-- What an owner may do to a table of the record: read and add. A superuser can do more, which is what the
-- hashes are for.
create function guard_record(guarded regclass) returns void language plpgsql as $$
begin
    execute format(
        'create trigger never_truncated before truncate on %s execute function refuse_change()', guarded
    );
    execute format('revoke update, delete, truncate on %s from public, current_user', guarded);
end
$$;

-- What no month was made for. The service makes months ahead: a row in here is an alarm.
create table events_outside partition of ledger_events default;

create trigger never_changed before update or delete on ledger_events
    for each row execute function refuse_change();
select guard_record('ledger_events');
select guard_record('events_outside');

select make_events_month('ledger_events', month::date)
from (
    select distinct date_trunc('month', received_at at time zone 'UTC') as month from events
    union
    select date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead)
    from generate_series(0, 1) as ahead
) as months
order by month;

create function hash_after(previous bytea, head text, envelope bytea) returns bytea
language sql immutable as $$
    select sha256('\x00'::bytea || previous || convert_to(head, 'UTF8') || envelope)
$$;

create aggregate hash_chain(head text, envelope bytea) (
    sfunc = hash_after,
    stype = bytea,
    initcond = '\x0000000000000000000000000000000000000000000000000000000000000000'
);

insert into ledger_events
select
    stream, number, position, id, time, type, source, subject, operation, cause, actor, vm, host,
    received_at,
    coalesce(lag(hash) over in_order, decode(repeat('00', 32), 'hex')),
    hash, envelope
from (
    select *, hash_chain(
        concat_ws(
            E'\n', stream, number, position, (extract(epoch from received_at) * 1000000)::bigint,
            coalesce(operation::text, ''), coalesce(vm::text, ''), coalesce(host, ''), ''
        ),
        envelope
    ) over (order by number) as hash
    from (
        select *, row_number() over (order by received_at, position) as number from events
    ) as numbered
) as hashed
window in_order as (order by number);

drop aggregate hash_chain(text, bytea);
drop function hash_after(bytea, text, bytea);

insert into event_keys select id, stream, position from events;

-- Places in the stream that were passed by and not accounted for. `open`: to be looked for in the stream;
-- `filled`; `missing`: not in the stream any more; `unreadable`: a dead letter.
create table gaps (
    stream text not null,
    first bigint not null,
    last bigint not null check (last >= first),
    state text not null check (state in ('open', 'filled', 'missing', 'unreadable')),
    found_at timestamptz not null,
    settled_at timestamptz,
    primary key (stream, first)
);

create index gaps_not_filled on gaps (stream, first) where state <> 'filled';

insert into gaps (stream, first, last, state, found_at)
select stream, before + 1, position - 1, 'open', now()
from (
    select
        stream, position,
        greatest(
            lag(position) over (partition by stream order by position),
            position >> 48 << 48
        ) as before
    from events
) as pairs
where position > before + 1;

insert into ledgers
select
    stream, epoch,
    (select count(*) from events where events.stream = streams.stream),
    greatest(
        coalesce((select max(position) from events where events.stream = streams.stream), 0),
        epoch::bigint << 48
    ),
    coalesce(
        (select hash from ledger_events order by number desc limit 1), decode(repeat('00', 32), 'hex')
    ),
    coalesce((select max(received_at) from events), 'epoch')
from streams;

-- The signed root over a day of the ledger: `statement` is what was signed, as it was signed. `blocks` are
-- the roots over each 1,024 of its rows, one after the other, so that a proof needs no whole day.
create table seals (
    stream text not null,
    day date not null,
    first bigint not null,
    last bigint not null,
    statement bytea not null,
    signature bytea not null,
    key bytea not null,
    blocks bytea not null,
    primary key (stream, day)
);

create trigger never_changed before update or delete on seals
    for each row execute function refuse_change();
select guard_record('seals');
create trigger never_changed before update or delete on event_keys
    for each row execute function refuse_change();
select guard_record('event_keys');

drop view event_log;
drop table events;
drop table streams;
alter table ledger_events rename to events;

-- For people with psql: the events with the envelope as JSON.
create view event_log as
select
    stream, number,
    position >> 48 as epoch,
    position & ((1::bigint << 48) - 1) as sequence,
    id, time, type, source, subject, operation, cause, actor, vm, host, received_at,
    convert_from(envelope, 'UTF8')::json as envelope
from events;
