"""The metrics service: the newest that every host and guest has told of itself.

Owns: nothing that outlives it; what it knows is told anew with every tick.
Consumes: telemetry frames (`vireo.tel.<site>.<host>`, core NATS).
Emits: nothing. Answers `host` and `vm` at `vireo.svc.metrics.…`, and Prometheus' scrapes over HTTP.
Rests on: the newest wins and loss is fine; what falls silent is forgotten after a while.
"""
