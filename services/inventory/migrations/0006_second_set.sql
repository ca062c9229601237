-- The tables that follow from the events can be made anew beside those that are read (`rebuild.py`): in a
-- schema of their own, with the same columns, constraints and indexes, until they take the others' place.

create schema rebuild;

-- One row per operation that makes them anew: how far it has come in the ledger, and what came of it.
create table rebuilds (
    operation uuid primary key,
    started_at timestamptz not null default now(),
    number bigint not null default 0,
    outcome json
);

create function projections() returns text[] language sql immutable as $$
    select array['vms', 'operations', 'hosts']
$$;

create function drop_second_set() returns void language plpgsql as $$
declare
    name text;
begin
    foreach name in array projections() loop
        execute format('drop table if exists rebuild.%I', name);
    end loop;
end
$$;

-- Empty, with primary keys: the other indexes are made when most rows are there.
create function make_second_set() returns void language plpgsql as $$
declare
    name text;
    part record;
begin
    perform drop_second_set();
    foreach name in array projections() loop
        execute format(
            'create table rebuild.%I (like public.%I including defaults including constraints)',
            name, name
        );
        for part in
            select option from pg_class, unnest(reloptions) as option
            where oid = format('public.%I', name)::regclass
        loop
            execute format('alter table rebuild.%I set (%s)', name, part.option);
        end loop;
        for part in
            select conname, pg_get_constraintdef(oid) as definition from pg_constraint
            where conrelid = format('public.%I', name)::regclass and contype in ('p', 'u')
        loop
            execute format(
                'alter table rebuild.%I add constraint %I %s', name, part.conname, part.definition
            );
        end loop;
    end loop;
end
$$;

-- The indexes that the second set does not have yet.
create function index_second_set() returns void language plpgsql as $$
declare
    part record;
begin
    for part in
        select indexdef from pg_indexes as live
        where schemaname = 'public' and tablename = any(projections())
            and not exists (
                select from pg_indexes as there
                where there.schemaname = 'rebuild' and there.indexname = live.indexname
            )
    loop
        execute replace(part.indexdef, ' ON public.', ' ON rebuild.');
    end loop;
end
$$;

-- Readers wait for a moment; what they read then are the new tables.
create function take_second_set() returns void language plpgsql as $$
declare
    name text;
begin
    foreach name in array projections() loop
        execute format('drop table public.%I', name);
        execute format('alter table rebuild.%I set schema public', name);
    end loop;
end
$$;
