"""What cloud-init is to find at a guest's first boot. Pure.

It may hold passwords and keys. So it is part of no spec: it travels in the command and in the assignment,
which the host needs, and stands in no event, no table and no answer.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MOST_CHARACTERS = 32 * 1024
"""Of one file. An assignment is held in memory by its scheduler, and travels in one message."""

File = Annotated[str, Meta(max_length=MOST_CHARACTERS)]


class CloudInit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The files of a NoCloud seed
    (https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html)."""

    user_data: File = ""
    meta_data: File | None = None
    """If left out: the VM's id as `instance-id`, its name as `local-hostname`."""
    network_config: File | None = None

    def __repr__(self) -> str:
        """Nothing of it gets into a log or a traceback."""
        return f"{type(self).__name__}(…)"
