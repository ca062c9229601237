-- The record is searched in the order in which it was stored: a page that was read stays what it was,
-- whatever comes late and takes an earlier place in the stream.

drop index events_of_vm;
drop index events_of_host;
create index events_of_vm on events (vm, number) where vm is not null;
create index events_of_host on events (host, number) where host is not null;
create index events_by_actor on events (actor, number) where actor is not null;
create index events_of_type on events (type, number);

-- What came of something else than the command of its own operation: the threads between operations.
create index events_of_cause on events (cause, number)
where cause is not null and cause is distinct from operation;

-- The last row of a ledger that was stored before a time, 0 where there is none. Time never goes back in a
-- ledger, so it is looked for by halves; rows that were put away are passed over.
create function last_row_before(asked text, at timestamptz) returns bigint
language plpgsql stable as $$
declare
    low bigint := 0;
    high bigint := (select number from ledgers where stream = asked);
    middle bigint;
    found record;
begin
    while low < high loop
        middle := (low + high + 1) / 2;
        select number, received_at into found
        from events
        where number >= middle and stream = asked
        order by number
        limit 1;
        if found.received_at < at then
            low := found.number;
        else
            high := middle - 1;
        end if;
    end loop;
    return coalesce(low, 0);
end
$$;
