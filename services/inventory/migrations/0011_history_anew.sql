-- How everything was is made anew with the rest: the versions of rows follow from the events, too.

create or replace function projections() returns text[] language sql immutable as $$
    select array[
        'vms', 'operations', 'hosts', 'vm_versions', 'vm_documents', 'vm_lives', 'operation_versions',
        'host_versions'
    ]
$$;

-- As before, but of no table's type: the table may be another one tomorrow.
drop function hosts_at(timestamptz);
create function hosts_at(at timestamptz) returns table (
    name text, since timestamptz, number bigint, site text, state text, facts json, config json,
    labels jsonb, registered_at timestamptz, updated_at timestamptz
) language sql stable as $$
    select version.*
    from hosts
    cross join lateral (
        select * from host_versions
        where host_versions.name = hosts.name and since <= at
        order by since desc, number desc
        limit 1
    ) as version
$$;

create function analyze_second_set() returns void language plpgsql as $$
declare
    name text;
begin
    foreach name in array projections() loop
        execute format('analyze rebuild.%I', name);
    end loop;
end
$$;

-- The columns of a table's primary key, as a list.
create function key_of(of_schema text, name text) returns text language sql stable as $$
    select string_agg(quote_ident(attname), ', ' order by place)
    from pg_index, unnest(indkey) with ordinality as part (attnum, place)
    join pg_attribute using (attnum)
    where
        indrelid = format('%I.%I', of_schema, name)::regclass
        and attrelid = indrelid
        and indisprimary
$$;

-- What of a table has to be the same in both sets. Histories began at some time with what there was then,
-- where there had been none before: of those, what came later.
create function comparable(of_schema text, name text) returns text language sql stable as $$
    select case
        when name = 'vm_lives' then format(
            'select id, greatest(born, begins) as born, greatest(died, begins) as died'
            ' from %I.vm_lives, public.history', of_schema
        )
        when name in ('vm_versions', 'vm_documents', 'operation_versions', 'host_versions') then format(
            'select * from %I.%I where since > (select begins from public.history)', of_schema, name
        )
        else format('select * from %I.%I', of_schema, name)
    end
$$;

-- How many rows a table has, and the SHA-256 over the SHA-256 of each one's text, in the order of the keys.
create function hash_of_table(of_schema text, name text) returns table (rows bigint, hash bytea)
language plpgsql stable as $$
begin
    return query execute format(
        'select count(*), sha256(coalesce('
        '    string_agg(sha256(convert_to(compared::text, ''UTF8'')), '''' order by %s), ''''))'
        ' from (%s) as compared',
        key_of(of_schema, name), comparable(of_schema, name)
    );
end
$$;

-- The same of versions, of which only more come: for each 65,536 rows of the ledger, from one such piece up to
-- another.
create function hash_of_versions(of_schema text, name text, first bigint, upto bigint)
returns table (piece bigint, rows bigint, hash bytea)
language plpgsql stable as $$
begin
    return query execute format(
        'select number >> 16, count(*), sha256('
        '    string_agg(sha256(convert_to(compared::text, ''UTF8'')), '''' order by %s))'
        ' from (%s) as compared where number >> 16 >= %s and number >> 16 < %s'
        ' group by 1 order by 1',
        key_of(of_schema, name), comparable(of_schema, name), first, upto
    );
end
$$;

-- The keys of rows that are not the same in both sets, or stand in one alone, at most so many; and how many
-- there are in all.
create function differing_rows(name text, most bigint) returns table (key text, count bigint)
language plpgsql stable as $$
begin
    return query execute format(
        'select concat_ws('' '', %1$s), count(*) over ()'
        ' from (%2$s) as live full join (%3$s) as made using (%1$s)'
        ' where live::text is distinct from made::text order by 1 limit %4$s',
        key_of('public', name), comparable('public', name), comparable('rebuild', name), most
    );
end
$$;
