-- Months that are put away into files: which, with what the rest of the ledger goes on from.

-- One row per month, in order. `statement` is the anchor as it was signed (`schemas/seals.py`); `last` is the
-- last row that was put away, `position` the furthest place in the stream among those rows.
create table archives (
    stream text not null,
    last bigint not null,
    position bigint not null,
    statement bytea not null,
    signature bytea not null,
    key bytea not null,
    primary key (stream, last)
);

create trigger never_changed before update or delete on archives
    for each row execute function refuse_change();
select guard_record('archives');

-- What FLEET is made anew from outlives its month: the events that told the assignments of VMs that live.
create table kept_assignments (
    number bigint primary key,
    vm uuid not null,
    envelope bytea not null
);

create index kept_assignments_of_vm on kept_assignments (vm, number);

-- The table of a month's events.
create function events_month(month date) returns regclass language plpgsql stable as $$
declare
    name text := 'events_' || to_char(month, 'YYYY_MM');
begin
    if not exists (
        select from pg_inherits
        where inhparent = 'events'::regclass and inhrelid = to_regclass(name)
    ) then
        raise exception 'the record has no table %', name using errcode = 'undefined_table';
    end if;
    return to_regclass(name);
end
$$;

create function events_month_rows(month date) returns table (first bigint, last bigint, rows bigint)
language plpgsql stable as $$
begin
    return query execute format(
        'select min(number), max(number), count(*) from %s', events_month(month)
    );
end
$$;

create function drop_events_month(month date) returns void language plpgsql as $$
begin
    execute format('drop table %s', events_month(month));
end
$$;
