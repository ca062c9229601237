-- The past of hosts and VMs, summed up. A row holds what was one of them during some time (a chunk) at one
-- of four levels: entries of fixed size one behind the other (services/metrics/entries.py), so that a
-- graph is a few rows, side by side in the index.
--
-- Times are Unix seconds: what counts here is whole steps of them.

create table chunks (
    level smallint not null,
    entity text collate "C" not null,
    start bigint not null,
    width smallint not null,
    until bigint not null,
    entries bytea not null,
    primary key (level, entity, start, width)
) partition by list (level);

comment on column chunks.entity is 'vm/<id> or host/<name>';
comment on column chunks.width is 'series per entry: those that there were when it was written';
comment on column chunks.until is 'when the last entry ends; nothing before it is added any more';

-- Numbers do not shrink by what Postgres compresses with, and trying costs more than it brings.
alter table chunks alter column entries set storage external;

-- What is old goes with its partition: nothing is deleted row by row.
create table chunks_1m partition of chunks for values in (0) partition by range (start);
create table chunks_30m partition of chunks for values in (1) partition by range (start);
create table chunks_6h partition of chunks for values in (2) partition by range (start);
create table chunks_1w partition of chunks for values in (3) partition by range (start);

-- How far each level has come.
create table summed_up (
    level smallint primary key,
    until bigint not null
);

-- Make the partition of a level that begins at `first` and ends before `past`.
create function ensure_part(level_name text, first bigint, past bigint) returns void
language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtext('vireo_metrics_parts'));
    if to_regclass(format('chunks_%s_%s', level_name, first)) is null then
        execute format(
            'create table %I partition of %I for values from (%L) to (%L)',
            format('chunks_%s_%s', level_name, first), format('chunks_%s', level_name), first, past
        );
        -- Rows of the finest level are rewritten each minute: they stay in their page, in one piece.
        execute format(
            'alter table %I set (toast_tuple_target = 8160, fillfactor = 70)',
            format('chunks_%s_%s', level_name, first)
        );
    end if;
end
$$;

-- Drop the partitions of a level that begin before `before`; says how many.
create function drop_parts(level_name text, before bigint) returns int
language plpgsql as $$
declare
    part text;
    dropped int := 0;
begin
    for part in
        select child.relname
        from pg_inherits
        join pg_class child on child.oid = inhrelid
        where inhparent = to_regclass(format('chunks_%s', level_name))
          and substring(child.relname from '[0-9]+$')::bigint < before
    loop
        execute format('drop table %I', part);
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;
