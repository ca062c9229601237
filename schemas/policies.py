"""Policies: how the scheduler weighs hosts and how strict each rule is. Values only.

`schemas.definition_files` reads them from YAML.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import Name

Term = Literal[
    "free_memory",
    "free_cpu",
    "free_disk",
    "packed",
    "balanced",
    "idle",
    "energy",
    "image_cached",
    "headroom",
    "host_weight",
]
"""What a host is scored by. Each is from 0 to 1, more is better; the formulas are in the scheduler's
scores and in `docs/scheduling.md`."""

SoftRule = Literal["labels", "taints", "image", "affinity", "anti_affinity", "spread", "numa"]
"""Rules that a policy may loosen. The others say what can be and what cannot."""

Strictness = Literal["required", "preferred", "off"]
"""`preferred`: the host is not excluded, but scores 0 instead of 1 in a term of the rule's name."""

MOST_VERSIONS = 1_000_000_000

Version = Annotated[
    int,
    Meta(ge=0, le=MOST_VERSIONS, description="0 or left out: the next, counted when it is applied"),
]

TermWeight = Annotated[float, Meta(ge=0, le=1000)]


class PolicyParameters(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The numbers in the formulas."""

    preference_weight: TermWeight = 2.0
    """Weight of each soft rule that a VM or the policy brings along."""
    watts_scale: Annotated[float, Meta(gt=0, le=100_000)] = 500.0
    """Added watts at which the term `energy` reaches 0."""


class Policy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named, versioned way to choose among the hosts that fit."""

    name: Name
    version: Version = 0
    description: Annotated[str, Meta(max_length=1024)] = ""
    weights: dict[Term, TermWeight] = {}
    rules: dict[SoftRule, Strictness] = {}
    """Those not named are required."""
    parameters: PolicyParameters = PolicyParameters()
