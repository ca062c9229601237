"""The scheduler: gives every VM to a host, with reasons, and carries every later wish to that host.

Owns:      bucket FLEET (assignments, host facts and configuration), the agents' durable consumers.
Consumes:  COMMANDS `vm.*`, `host.*`, `fleet.restore`; EVENTS `host.registered` and `vm.deleted`; LEASES;
           telemetry.
Emits:     `vm.scheduled`, `vm.reassigned`, `host.configured`, `host.silent`, `host.returned`,
           `fleet.restored`, `operation.succeeded` (host.configure), `operation.failed` (refusals);
           actions `vm.reboot_once`.
"""
