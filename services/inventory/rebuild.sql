-- Making the tables anew that follow from the events. What reads and writes their rows stands in
-- `queries.sql`: with `second_set_first` it means those of the second set.

-- name: lock_rebuilds
-- One at a time.
select pg_advisory_xact_lock(hashtext('vireo.rebuild'));

-- name: outcome
select outcome from rebuilds where operation = $1;

-- name: begin
-- Forgets what was begun by others and not finished.
delete from rebuilds where outcome is null;

-- name: make_second_set
select make_second_set();

-- name: enter
insert into rebuilds (operation) values ($1);

-- name: progress
-- Whoever else makes them anew waits here.
select number from rebuilds where operation = $1 and outcome is null for update;

-- name: advance
update rebuilds set number = $2 where operation = $1;

-- name: keep_outcome
update rebuilds set outcome = $2 where operation = $1;

-- name: second_set_first
set local search_path = rebuild, public;

-- name: live_set_only
set local search_path = public;

-- name: patience
-- Of the statements of this transaction, in milliseconds.
select set_config('statement_timeout', $1, true);

-- name: rows
select number from ledgers where stream = $1;

-- name: index_second_set
select index_second_set();

-- name: analyze_second_set
select analyze_second_set();

-- name: take_second_set
select take_second_set();

-- name: drop_second_set
select drop_second_set();

-- name: history_is_whole
-- It goes back to the first event.
update history set begins = 'epoch';

-- name: hash_of_table
-- In the schema $1.
select rows, hash from hash_of_table($1, $2);

-- name: hash_of_versions
-- In the schema $1, of pieces from $3 up to $4.
select piece, rows, hash from hash_of_versions($1, $2, $3, $4);

-- name: differing_rows
select key, count from differing_rows($1, $2);

-- name: deaths
update vm_lives set died = told.died
from unnest($1::uuid[], $2::timestamptz[]) as told (id, died)
where vm_lives.id = told.id;
