"""What a VM may ask of its place, and what a host may say against VMs: values only.

Label expressions, taints and tolerations, affinity, spread, devices. What they mean to the scheduler is
in its rules; the semantics follow Kubernetes where it has the same notion.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import END, HostName, LabelKey, Labels, LabelValue

Operator = Literal["in", "not_in", "exists", "not_exists", "greater", "less"]
Weight = Annotated[int, Meta(ge=1, le=100)]
DeviceClass = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}" + END, description="gpu, nic-100g, 10de-2204")
]
HugePageKib = Literal[2048, 1048576]


class LabelExpression(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One condition on labels. `not_in` and `not_exists` hold where the key is missing; `greater` and
    `less` compare whole numbers and hold for no label that is not one."""

    key: LabelKey
    operator: Operator
    values: Annotated[tuple[LabelValue, ...], Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        if self.operator in ("exists", "not_exists"):
            if self.values:
                raise ValueError(f"{self.operator} takes no values")
        elif self.operator in ("in", "not_in"):
            if not self.values:
                raise ValueError(f"{self.operator} needs at least one value")
        elif len(self.values) != 1 or whole_number(self.values[0]) is None:
            raise ValueError(f"{self.operator} needs one whole number")


def whole_number(text: str) -> int | None:
    """The number that a label's value is, if it is one: ASCII digits, at most 15, perhaps a minus."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 15:
        return int(text)
    return None


Expressions = Annotated[tuple[LabelExpression, ...], Meta(max_length=16)]


class Taint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host's word against VMs: `refuse` excludes those that do not tolerate it, `avoid` costs score."""

    key: LabelKey
    value: LabelValue = ""
    effect: Literal["refuse", "avoid"] = "refuse"


class Toleration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The taints that a VM puts up with: of this key, or any; of this value, or any."""

    key: LabelKey | None = None
    value: LabelValue | None = None


class Affinity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """To be near (or, as anti-affinity, away from) the VMs that these labels and expressions select.

    Near is the same host, or hosts with the same value of the label `topology`. `required` excludes
    hosts; otherwise `weight` says how much it counts in the score.
    """

    labels: Labels = {}
    expressions: Expressions = ()
    topology: LabelKey | None = None
    required: bool = True
    weight: Weight = 1


class Spread(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The VMs selected (all, when nothing is said) are to be spread over the values of the label
    `topology`, or over hosts: no value may have more than `max_skew` above the one that has fewest."""

    labels: Labels = {}
    expressions: Expressions = ()
    topology: LabelKey | None = None
    max_skew: Annotated[int, Meta(ge=1, le=1000)] = 1
    required: bool = True
    weight: Weight = 1


class HostPreference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hosts that a VM would rather be on: they score by `weight`, none is excluded."""

    labels: Labels = {}
    expressions: Expressions = ()
    weight: Weight = 1


class HostRules(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a VM may be: every label and expression must match its host; `host` pins it."""

    host: HostName | None = None
    labels: Labels = {}
    not_on: Annotated[tuple[HostName, ...], Meta(max_length=256)] = ()
    expressions: Expressions = ()
    tolerations: Annotated[tuple[Toleration, ...], Meta(max_length=16)] = ()
    prefer: Annotated[tuple[HostPreference, ...], Meta(max_length=16)] = ()
    affinity: Annotated[tuple[Affinity, ...], Meta(max_length=8)] = ()
    anti_affinity: Annotated[tuple[Affinity, ...], Meta(max_length=8)] = ()
    spread: Annotated[tuple[Spread, ...], Meta(max_length=8)] = ()


class DeviceRequest(Struct, frozen=True, kw_only=True):
    """So many devices of a class, for this VM alone."""

    name: DeviceClass
    count: Annotated[int, Meta(ge=1, le=64)] = 1


class Hardware(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a VM asks of the machine beyond CPUs, memory and disks."""

    numa: Literal["one", "any"] = "one"
    """`one`: CPUs and memory of one NUMA node; `any`: it may span nodes."""
    huge_page_kib: HugePageKib | None = None
    """Its memory is made of huge pages of this size, and takes no other."""
    devices: Annotated[tuple[DeviceRequest, ...], Meta(max_length=16)] = ()


class HugePages(Struct, frozen=True, kw_only=True):
    """Huge pages that a host, or one of its NUMA nodes, has set aside."""

    size_kib: HugePageKib
    pages: int


class HostDevice(Struct, frozen=True, kw_only=True):
    """A PCI device that may be handed to a guest."""

    name: DeviceClass
    address: Annotated[str, Meta(max_length=63)]
    """As libvirt writes it: `0000:41:00.0`."""
