"""The inventory: every event for ever in Postgres, and what follows from it.

Owns: the ledger (`events`, `event_keys`, `ledgers`, `gaps`, `seals`, `archives`) and the files of
months that were put away; the tables `vms`, `hosts`, `operations`, and how they were (`history`,
`vm_versions`, …); `definitions`, and with it the keys `policy.*`, `template.*`, `project.*` and
`rule.*` of the bucket CONFIG.
Consumes: every event (stream EVENTS, durable `inventory`); commands about policies, templates, projects and
alert rules (stream COMMANDS, durable `inventory-<site>`), about making the tables or FLEET anew
(`rebuild-<site>`) and about replays (`replay-<site>`, `replay-stop-<site>`).
Emits: `ledger.sealed`, `ledger.gap_found`, `ledger.gap_settled`, `ledger.archived`; what became of
those commands (`policy.applied`, `policy.removed`, …) and their operations' end; `inventory.rebuilt`,
`replay.ended`, recorded events under `vireo.replay.<name>.…`; to the scheduler `fleet.restore`.
Answers `vm.get`, `vm.list`, `host.get`, `host.list`, `operation.get` (which may wait), `operation.list`,
`operation.effects`, `change.list`, `event.list`, `event.earlier`, `definition.get`, `definition.list`,
`definition.versions`, and for auditors `ledger.…`, at `vireo.svc.inventory.…`.
Rests on: events are inserted and projected in one transaction and acknowledged after its commit, so
that a batch that is delivered again changes nothing.
"""
