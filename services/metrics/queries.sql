-- The metrics service's queries. `chunks` is described in migrations/0001_chunks.sql.

-- name: append_chunks
-- Entries behind those that a chunk has. Entries of a time that it has already are not added: another
-- process wrote them, or this one before its connection broke.
insert into chunks (level, entity, start, width, until, entries)
select $1, given.entity, $2, $3, $4, given.entries
from unnest($5::text[], $6::bytea[]) as given (entity, entries)
on conflict (level, entity, start, width) do update
set entries = chunks.entries || excluded.entries, until = excluded.until
where chunks.until < excluded.until

-- name: read_chunks
select width, entries
from chunks
where level = $1 and entity = $2 and start >= $3 and start < $4
order by start, width

-- name: chunks_of_all
-- Every entity's chunks of some time, one entity after the other.
select entity, width, entries
from chunks
where level = $1 and start >= $2 and start < $3
order by entity, start, width

-- name: summed_up
select level, until from summed_up

-- name: advance
-- Never back: another process may have come further.
insert into summed_up (level, until) values ($1, $2)
on conflict (level) do update set until = greatest(summed_up.until, excluded.until)

-- name: ensure_part
select ensure_part($1, $2, $3)

-- name: drop_parts
select drop_parts($1, $2)
