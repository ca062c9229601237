-- Recorded events, published again.

-- name: begin
-- From the row after the last that was stored before $4, to the last that was stored before $5.
insert into replays (operation, name, number, last)
select $1, $2, last_row_before($3, $4), last_row_before($3, $5)
on conflict (operation) do nothing;

-- name: state
select name, number, last, published, stopped, ended from replays where operation = $1;

-- name: advance
update replays set number = $2, published = published + $3 where operation = $1
returning stopped;

-- name: is_stopped
select stopped from replays where operation = $1;

-- name: end
update replays set ended = true where operation = $1;

-- name: stop
update replays set stopped = true where name = $1 and not ended returning operation::text;

-- name: next_events
select number, id::text, time, type, source, subject, envelope
from events
where stream = $1 and number > $2 and number <= $3
    and ($4::uuid is null or vm = $4)
    and ($5::text is null or host = $5)
    and ($6::uuid is null or operation = $6)
    and ($7::text[] is null or type = any($7))
order by number
limit $8;

-- name: count
select count(*) from events
where stream = $1 and number > last_row_before($1, $2) and number <= last_row_before($1, $3)
    and ($4::uuid is null or vm = $4)
    and ($5::text is null or host = $5)
    and ($6::uuid is null or operation = $6)
    and ($7::text[] is null or type = any($7));
