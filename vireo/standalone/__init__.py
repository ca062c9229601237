"""All of Vireo on one machine, as `vireo up` starts it: NATS, Postgres and the services as processes.

What belongs here: what to start, with which settings and credentials (pure: `options`, `permissions`,
`nats`, `plan`), and keeping it going (`supervisor`, `up`). The servers are those of the extra
`standalone`; a production install has its own and its service manager.
"""
