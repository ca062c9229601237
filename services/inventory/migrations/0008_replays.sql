-- Recorded events that are published again: how far each replay has come, so that it goes on there.

create table replays (
    operation uuid primary key,
    name text not null,
    number bigint not null,
    last bigint not null,
    published bigint not null default 0,
    stopped boolean not null default false,
    ended boolean not null default false
);
