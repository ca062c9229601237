"""The metrics service: what every host and guest tells of itself, now and over the years.

Owns: the tables `chunks` and `summed_up`, in a database of its own; the last hour is in memory. What fires
and what is silenced: CONFIG's key `alerts.<site>`.
Consumes: telemetry frames (`vireo.tel.<site>.<host>`, core NATS), commands about alerts, the events that
rules are about; follows CONFIG for the rules and FLEET for the names of VMs.
Emits: `alert.…`. Answers questions at `vireo.svc.metrics.…`, and Prometheus' scrapes over HTTP.
Rests on: the newest wins and loss is fine: what was not told is a gap. What falls silent is forgotten.
"""
