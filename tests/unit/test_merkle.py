"""Trees over the hashes of rows: one root, and short proofs for any choice of leaves."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.merkle import BLOCK, EMPTY, Unproven, prove, proven_root, root_of


def leaves(count: int) -> list[bytes]:
    return [sha256(number.to_bytes(4, "big")).digest() for number in range(count)]


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def test_a_tree_is_cut_at_the_largest_power_of_two_below_its_size() -> None:
    one, two, three, four, five = leaves(5)
    assert root_of([]) == EMPTY
    assert root_of([one]) == one
    assert root_of([one, two, three]) == node(node(one, two), three)
    assert root_of([one, two, three, four, five]) == node(
        node(node(one, two), node(three, four)), five
    )


def test_a_tree_over_the_roots_of_blocks_is_the_tree_over_their_leaves() -> None:
    all_leaves = leaves(2 * BLOCK + 5)
    blocks = [
        root_of(all_leaves[start : start + BLOCK]) for start in range(0, len(all_leaves), BLOCK)
    ]
    assert root_of(blocks) == root_of(all_leaves)


@given(st.integers(1, 90), st.data())
def test_any_choice_of_leaves_is_proven_to_be_in_its_tree(size: int, data: st.DataObject) -> None:
    members = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    tree = leaves(size)
    proof = prove(size, members, lambda low, high: root_of(tree[low:high]))
    held = {index: tree[index] for index in members}
    assert proven_root(size, held, proof) == root_of(tree)
    for index in members:
        forged = {**held, index: bytes(32)}
        assert proven_root(size, forged, proof) != root_of(tree)


def test_one_leaf_of_a_million_is_proven_by_twenty_hashes() -> None:
    proof = prove(1_000_000, [123_456], lambda low, high: bytes(32))
    assert len(proof) == 20


@pytest.mark.parametrize("proof", [[], leaves(9)])
def test_a_proof_of_another_length_is_none(proof: list[bytes]) -> None:
    with pytest.raises(Unproven):
        proven_root(8, {3: bytes(32)}, proof)


def test_a_row_outside_of_its_tree_is_not_proven() -> None:
    with pytest.raises(Unproven):
        proven_root(8, {8: bytes(32)}, leaves(4))
