-- Every event for ever, as it stood on the stream.

-- One row per stream; its lock lets one writer project at a time. `epoch` counts how often the stream
-- was found to have been made anew, counting its sequences from 1 again.
create table streams (
    stream text primary key,
    epoch integer not null default 0 check (epoch >= 0)
);

insert into streams (stream) values ('EVENTS');

-- `position` is the epoch (high bits) and the sequence in the stream (low 48 bits): the order of all.
-- `envelope` are the event's canonical bytes: whatever is checked against them (a hash chain, a
-- signature) is checked against what was published. The other columns are read from it, to find it by.
-- Nothing updates or deletes here, so the table can later be cut into ranges of `position` by month.
create table events (
    stream text not null references streams (stream),
    position bigint not null check (position > 0),
    id uuid not null unique,
    time timestamptz not null,
    type text not null,
    source text not null,
    subject text,
    operation uuid,
    cause uuid,
    actor text,
    vm uuid,
    host text,
    received_at timestamptz not null default now(),
    envelope bytea not null,
    primary key (stream, position)
);

create index events_by_operation on events (operation, position) where operation is not null;
create index events_by_vm on events (vm, position) where vm is not null;
create index events_by_host on events (host, position) where host is not null;
create index events_by_time on events using brin (time);

-- For people with psql: the same with the envelope as JSON.
create view event_log as
select
    stream,
    position >> 48 as epoch,
    position & ((1::bigint << 48) - 1) as sequence,
    id, time, type, source, subject, operation, cause, actor, vm, host, received_at,
    convert_from(envelope, 'UTF8')::json as envelope
from events;
