-- How the rows of VMs, operations and hosts were at any time: a version for each transaction that changed
-- them, valid until the next. `since` is the time of storing, as in the ledger; `number` is the last row of
-- the ledger by then, and tells versions of one time apart. Rows are only ever added.

create table history (
    begins timestamptz not null
);

create table vm_versions (
    id uuid not null,
    since timestamptz not null,
    number bigint not null,
    host text not null,
    state text not null,
    power text not null,
    generation bigint not null,
    deleted boolean not null,
    operation uuid,
    problem text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (id, since, number)
);

-- What seldom changes of a VM and is long: a version only where it changed.
create table vm_documents (
    id uuid not null,
    since timestamptz not null,
    number bigint not null,
    site text not null,
    name text not null,
    cpus integer not null,
    memory_mib bigint not null,
    disk_gib bigint not null,
    unsized jsonb not null,
    labels jsonb not null,
    spec json not null,
    guest json,
    placement json,
    primary key (id, since, number)
);

create index vm_documents_by_name on vm_documents (name);

-- From when to when each VM was to be seen: which ones there were at a time is found by one look.
create table vm_lives (
    id uuid primary key,
    born timestamptz not null,
    died timestamptz not null default 'infinity'
);

create index vm_lives_at on vm_lives using gist (tstzrange(born, died));

-- `placement` only in the version that brought it.
create table operation_versions (
    id uuid not null,
    since timestamptz not null,
    number bigint not null,
    first boolean not null,
    command text not null,
    kind text not null,
    target text not null,
    phase text not null,
    actor text not null,
    progress double precision not null,
    detail text not null,
    host text,
    problem json,
    placement json,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (id, since, number)
);

create index operation_births on operation_versions (id) include (since) where first;

create table host_versions (
    name text not null collate "C",
    since timestamptz not null,
    number bigint not null,
    site text not null,
    state text not null,
    facts json not null,
    config json,
    labels jsonb not null,
    registered_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (name, since, number)
);

create index vm_versions_since on vm_versions using brin (since) with (pages_per_range = 16);
create index vm_documents_since on vm_documents using brin (since) with (pages_per_range = 16);
create index host_versions_since on host_versions using brin (since) with (pages_per_range = 16);

-- The VMs that there were at a time, as they were.
create function vms_at(at timestamptz) returns table (
    id uuid, site text, spec json, state text, power text, host text, generation bigint,
    created_at timestamptz, updated_at timestamptz, guest json, placement json, operation uuid,
    problem text, name text, labels jsonb, cpus integer, memory_mib bigint, disk_gib bigint,
    unsized jsonb, deleted boolean
) language sql stable as $$
    select
        lives.id, wished.site, wished.spec, version.state, version.power, version.host,
        version.generation, version.created_at, version.updated_at, wished.guest, wished.placement,
        version.operation, version.problem, wished.name, wished.labels, wished.cpus,
        wished.memory_mib, wished.disk_gib, wished.unsized, version.deleted
    from vm_lives as lives
    cross join lateral (
        select * from vm_versions
        where vm_versions.id = lives.id and since <= at
        order by since desc, number desc
        limit 1
    ) as version
    cross join lateral (
        select * from vm_documents
        where vm_documents.id = lives.id and since <= at
        order by since desc, number desc
        limit 1
    ) as wished
$$;

create function hosts_at(at timestamptz) returns setof host_versions language sql stable as $$
    select version.*
    from hosts
    cross join lateral (
        select * from host_versions
        where host_versions.name = hosts.name and since <= at
        order by since desc, number desc
        limit 1
    ) as version
$$;

-- What there is now is how it was since the last row of the ledger was stored.
insert into history select received_at from ledgers where stream = 'EVENTS';

insert into vm_versions
select
    id, received_at, number, host, state, power, generation, deleted, operation, problem, created_at,
    updated_at
from vms, ledgers
where spec is not null and stream = 'EVENTS';

insert into vm_documents
select
    id, received_at, number, site, name, cpus, memory_mib, disk_gib, unsized, labels, spec, guest,
    placement
from vms, ledgers
where spec is not null and stream = 'EVENTS';

insert into vm_lives
select id, received_at, case when deleted then received_at else 'infinity' end
from vms, ledgers
where spec is not null and stream = 'EVENTS';

insert into operation_versions
select
    id, received_at, number, true, command, kind, target, phase, actor, progress, detail, host,
    problem, placement, created_at, updated_at
from operations, ledgers
where stream = 'EVENTS';

insert into host_versions
select
    name, received_at, number, site, state, facts, config, labels, registered_at, updated_at
from hosts, ledgers
where facts is not null and stream = 'EVENTS';
