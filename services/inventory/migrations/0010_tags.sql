-- What is read in lists has a tag, changed by whatever changes the table and never used twice: what was read under
-- a tag is true for as long as it stands. Triggers do it, so that it holds for whoever writes: inventories of an
-- older version, too, and people with psql.

create table tags (
    name text primary key,
    tag uuid not null default gen_random_uuid()
);

insert into tags (name) values ('vms'), ('hosts');

create function change_tag() returns trigger language plpgsql as $$
begin
    update tags set tag = gen_random_uuid() where name = tg_table_name;
    return null;
end
$$;

create function keep_tags() returns void language plpgsql as $$
declare
    name text;
begin
    for name in select tags.name from tags loop
        execute format(
            'create trigger changes_tag after insert or update or delete or truncate on public.%I '
            'for each statement execute function change_tag()', name
        );
    end loop;
end
$$;

select keep_tags();

-- As before; the new tables are others than those that were read.
create or replace function take_second_set() returns void language plpgsql as $$
declare
    name text;
begin
    foreach name in array projections() loop
        execute format('drop table public.%I', name);
        execute format('alter table rebuild.%I set schema public', name);
    end loop;
    perform keep_tags();
    update tags set tag = gen_random_uuid();
end
$$;
