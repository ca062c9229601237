-- Recorded events, published again.

-- name: begin
-- From the row after $3 to row $4.
insert into replays (operation, name, number, last)
values ($1, $2, $3, $4)
on conflict (operation) do nothing;

-- name: state
select name, number, last, published, stopped, ended, problem from replays where operation = $1;

-- name: advance
update replays set number = $2, published = published + $3 where operation = $1
returning stopped;

-- name: is_stopped
select stopped from replays where operation = $1;

-- name: end
update replays set ended = true where operation = $1;

-- name: fail
update replays set ended = true, problem = $2 where operation = $1;

-- name: stop
update replays set stopped = true where name = $1 and not ended returning operation::text;

-- name: count
select count(*) from events
where stream = $1 and number > $2 and number <= $3
    and ($4::uuid is null or vm = $4)
    and ($5::text is null or host = $5)
    and ($6::uuid is null or operation = $6)
    and ($7::text[] is null or type = any($7));
