"""The inventory: every event for ever in Postgres, and what follows from it.

Owns: the tables `events`, `vms`, `hosts`, `operations`.
Consumes: every event (stream EVENTS, durable `inventory`).
Emits: nothing. Answers `vm.get`, `vm.list`, `host.get`, `host.list`, `operation.get` (which may wait),
`operation.list`, `event.list` at `vireo.svc.inventory.…`.
Rests on: events are inserted and projected in one transaction and acknowledged after its commit, so
that a batch that is delivered again changes nothing.
"""
