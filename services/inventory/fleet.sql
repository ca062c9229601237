-- What belonged into FLEET, by the events.

-- name: told_through
-- How far the stream has been stored.
select position, epoch from ledgers where stream = $1;

-- name: live_vms
select id::text from vms
where not deleted and spec is not null and site = $1 and ($2::uuid is null or id > $2)
order by vms.id
limit $3;

-- name: assigned
-- Also what was told in months that are put away.
select envelope from (
    select number, envelope from kept_assignments where vm = any($1::uuid[])
    union all
    select number, envelope from events
    where vm = any($1::uuid[]) and type in ('vireo.vm.scheduled.v1', 'vireo.vm.reassigned.v1')
) as told
order by number;

-- name: hosts
select facts, config from hosts where site = $1 and (facts is not null or config is not null)
order by name;

-- name: confirmed
select envelope from events where operation = $1 and type = 'vireo.fleet.restored.v1';
