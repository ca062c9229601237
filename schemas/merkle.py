"""Merkle trees over the hashes of rows, and proofs that some rows are in one. Pure.

The tree is that of RFC 9162 (section 2.1), with the rows' hashes as its leaves: n leaves are cut at the
largest power of two below n. A proof for a set of leaves is what their tree consists of besides: the
roots of the largest subtrees that hold none of them, from left to right. A proof for all leaves is empty.

Leaves may be given in blocks of BLOCK leaves by their roots, where a whole block is not needed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256

BLOCK = 1024
"""Leaves in one block: a power of two, so that every cut of a larger tree falls between blocks."""

EMPTY = sha256(b"").digest()
_NODE = b"\x01"


class Unproven(ValueError):
    """A proof that doesn't fit its leaves; the text says how."""


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over `leaves`."""
    level = list(leaves)
    if not level:
        return EMPTY
    while len(level) > 1:
        pairs = [
            sha256(_NODE + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)
        ]
        # One left over rises as it is: where the tree is cut at powers of two it comes to the same.
        level = pairs if len(level) % 2 == 0 else [*pairs, level[-1]]
    return level[0]


def prove(size: int, members: Sequence[int], subtree: Callable[[int, int], bytes]) -> list[bytes]:
    """The proof that the leaves with the indices `members` (sorted) are in a tree of `size` leaves.

    `subtree(low, high)` is the root over the leaves from `low` up to `high`; it is asked for subtrees
    that hold no member.
    """
    return [subtree(low, high) for low, high in strangers(size, members)]


def strangers(size: int, members: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The largest subtrees of a tree of `size` leaves without any of `members`, from left to right."""
    return _strangers(0, size, members)


def proven_root(size: int, members: Mapping[int, bytes], proof: Sequence[bytes]) -> bytes:
    """The root that a tree of `size` leaves has if `members` are its leaves at these indices.

    Raises Unproven if the proof is too short, too long or for another size.
    """
    indices = sorted(members)
    if indices and not 0 <= indices[0] <= indices[-1] < size:
        raise Unproven("a row lies outside of its tree")
    rest = iter(proof)
    root = _rebuilt(0, size, indices, members, rest)
    if next(rest, None) is not None:
        raise Unproven("the proof is longer than its tree")
    return root


def _strangers(low: int, high: int, members: Sequence[int]) -> Iterator[tuple[int, int]]:
    held = _held(low, high, members)
    if held == 0:
        if high > low:
            yield low, high
    elif held < high - low:
        middle = _cut(low, high)
        yield from _strangers(low, middle, members)
        yield from _strangers(middle, high, members)


def _rebuilt(
    low: int,
    high: int,
    indices: Sequence[int],
    members: Mapping[int, bytes],
    proof: Iterator[bytes],
) -> bytes:
    held = _held(low, high, indices)
    if held == high - low:
        return root_of([members[index] for index in range(low, high)])
    if held == 0:
        node = next(proof, None)
        if node is None:
            raise Unproven("the proof is shorter than its tree")
        return node
    middle = _cut(low, high)
    left = _rebuilt(low, middle, indices, members, proof)
    return sha256(_NODE + left + _rebuilt(middle, high, indices, members, proof)).digest()


def _held(low: int, high: int, members: Sequence[int]) -> int:
    """How many members lie from `low` up to `high`."""
    return bisect_left(members, high) - bisect_left(members, low)


def _cut(low: int, high: int) -> int:
    """Where a tree is cut: after the largest power of two below its size."""
    return low + (1 << ((high - low - 1).bit_length() - 1))
