"""Receipts: whose they are, and what can be said by them."""

from __future__ import annotations

import pytest

from chassis.receipts import again, delivered_of, is_receipt, never, sequence_of

RECEIPT = "$JS.ACK.EVENTS.SUB_pager.2.4711.17.1733563800000000000.3"


def test_a_receipt_tells_its_message() -> None:
    assert is_receipt(RECEIPT, stream="EVENTS", consumer="SUB_pager")
    assert (sequence_of(RECEIPT), delivered_of(RECEIPT)) == (4711, 2)


@pytest.mark.parametrize(
    "text",
    [
        RECEIPT.replace("SUB_pager", "SUB_pagers"),
        RECEIPT.replace("EVENTS", "COMMANDS"),
        RECEIPT + ".4",
        RECEIPT + "\n",
        RECEIPT.replace("4711", "*"),
        "vireo.cmd.main.vm.delete",
        "",
    ],
)
def test_anything_else_is_none_of_this_consumers(text: str) -> None:
    assert not is_receipt(text, stream="EVENTS", consumer="SUB_pager")


def test_what_is_said_is_what_the_server_understands() -> None:
    assert again(0) == b"-NAK"
    assert again(1.5) == b'-NAK {"delay": 1500000000}'
    assert never("it\nfailed") == b"+TERM it failed"
