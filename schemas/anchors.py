"""Whether what was put away is told without a hole, by who may tell it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from schemas.ledger import Fault
from schemas.seals import Anchor, SignedAnchor, anchor_in


def faults_of_anchors(
    signed: Sequence[SignedAnchor], *, key: str, is_signed: Callable[[SignedAnchor], bool]
) -> Iterator[Fault]:
    """What is wrong with a ledger's anchors, oldest first; `key` is the public key that one trusts."""
    last = 0
    for each in signed:
        anchor = anchor_in(each)
        if each.key != key or not is_signed(each):
            yield _fault(
                "unsealed", anchor, f"the anchor of {anchor.month} is not under the key {key}"
            )
        if anchor.first > last + 1:
            yield Fault(
                what="missing",
                number=last + 1,
                last=anchor.first - 1,
                detail="no anchor says into which file they were put",
            )
        elif anchor.first <= last:
            yield _fault("inserted", anchor, f"the anchor of {anchor.month} is of rows of another")
        last = max(last, anchor.last)


def _fault(what: str, anchor: Anchor, detail: str) -> Fault:
    return Fault(what=what, number=anchor.first, last=anchor.last, detail=detail)
