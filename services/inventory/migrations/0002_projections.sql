-- What follows from the events: one row per VM, operation and host. All of it can be made again from
-- `events`. Documents are `json`, not `jsonb`: they are passed through as they are and may hold what
-- jsonb refuses (\u0000 in free text). No index names a column that changes in daily life, so that
-- updates stay within their page.

create table vms (
    id uuid primary key,
    site text not null,
    name text not null,
    host text not null,
    state text not null,
    power text not null,
    generation bigint not null,
    ending boolean not null,
    deleted boolean not null,
    cpus integer not null,
    memory_mib bigint not null,
    disk_gib bigint not null,
    unsized jsonb not null,
    labels jsonb not null,
    spec json,
    guest json,
    placement json,
    operation uuid,
    problem text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    position bigint not null,
    state_position bigint not null,
    guest_position bigint not null
) with (fillfactor = 70);

create index vms_by_name on vms (name, id) where not deleted;
create index vms_by_host on vms (host, id) where not deleted;
create index vms_by_labels on vms using gin (labels jsonb_path_ops);

create table operations (
    id uuid primary key,
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
    position bigint not null
) with (fillfactor = 70);

create index operations_by_target on operations (target, id);
create index operations_by_actor on operations (actor, id);

create table hosts (
    name text primary key collate "C",
    site text not null,
    state text not null,
    facts json,
    config json,
    config_generation bigint not null,
    labels jsonb not null,
    registered_at timestamptz not null,
    updated_at timestamptz not null,
    state_position bigint not null,
    facts_position bigint not null
);
