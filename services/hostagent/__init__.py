"""The agent of one host: makes libvirt do what the host's assignments say, and tells what happened.

Owns: the guests of its host that Vireo made, their disks, the host's lease and facts.
Consumes: its part of the bucket FLEET (durable `FLEET_<host>`), ACTIONS (durable `ACTIONS_<host>`),
libvirt's own events.
Emits: `vm.defined|started|stopped|crashed|paused|resumed|rebooted|deleted|drifted|failed|guest_changed`,
`operation.progressed|succeeded|failed`, `host.registered`; telemetry frames; its lease.

It destroys, stops or forgets a guest only because an assignment with a newer generation says so, never
because a key, a bucket or the bus is missing. What it does not know it reports and leaves alone.
"""
