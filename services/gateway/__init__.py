"""gateway: the door. HTTP requests become commands; questions become rpc; events become a stream.

Owns: the REST contract `/v1`, the bearer tokens (bucket CONFIG, `token.<name>`) and the answers kept under
idempotency keys (bucket IDEMPOTENCY).
Asks: `vireo.svc.inventory.*` and `vireo.svc.metrics.*`; their answers pass through as bytes.
Follows: CONFIG `token.*`; EVENTS, once per open stream.
Publishes: every command (COMMANDS) and `operation.accepted` (EVENTS).
"""
