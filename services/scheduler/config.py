"""CONFIG into the fleet: policies and projects as people define them, while the scheduler runs.

What cannot be read is logged and changes nothing: the definition before it stays in force.
"""

from __future__ import annotations

import msgspec
import structlog

from chassis.bus import Bus
from chassis.kv import Entry, entry, stream_of, subject_of
from schemas import subjects
from schemas.definitions import Project
from schemas.policies import Policy
from services.scheduler.definitions import Definitions

CONFIG = stream_of(subjects.KV_CONFIG)
FOLLOWED = tuple(
    subject_of(subjects.KV_CONFIG, subjects.definition_key(kind, "*"))
    for kind in ("policy", "project")
)

log = structlog.get_logger()

_policy = msgspec.json.Decoder(Policy)
_project = msgspec.json.Decoder(Project)


def define(definitions: Definitions, known: Entry) -> bool:
    """Apply one entry of CONFIG. Answers whether it was news."""
    kind, _, name = known.key.partition(".")
    try:
        if kind == "policy":
            policy = None if known.value is None else _policy.decode(known.value)
            news = definitions.apply_policy(name, policy, known.revision)
        else:
            project = None if known.value is None else _project.decode(known.value)
            news = definitions.apply_project(name, project, known.revision)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.error("definition_unreadable", key=known.key, revision=known.revision, why=str(error))
        return False
    if news:
        log.info("definition_applied", key=known.key, removed=known.value is None)
    return news


async def define_newest(definitions: Definitions, bus: Bus, key: str) -> bool:
    """Learn one key from the bus itself. Answers whether it was news."""
    newest = await bus.last(CONFIG, subject_of(subjects.KV_CONFIG, key))
    return newest is not None and define(definitions, entry(newest))
