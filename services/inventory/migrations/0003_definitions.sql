-- What people define: every version of every policy, template and project, for ever.

-- `data` is the definition as JSON, as it goes to CONFIG; null where it was removed with this version.
create table definitions (
    kind text not null,
    name text not null collate "C",
    version integer not null check (version > 0),
    data json,
    operation uuid not null unique,
    actor text not null,
    at timestamptz not null,
    primary key (kind, name, version)
);

-- The newest version of each, removed ones included.
create view newest_definitions as
select distinct on (kind, name) kind, name, version, data, operation, actor, at
from definitions
order by kind, name, version desc;

-- What a command came to, so that one that is delivered again comes to the same.
create table definition_outcomes (
    operation uuid primary key,
    outcome json not null
);

-- What the bucket CONFIG has not been told yet; written with the version, forgotten once CONFIG has it.
create table config_outbox (
    kind text not null,
    name text not null collate "C",
    version integer not null,
    primary key (kind, name)
);
