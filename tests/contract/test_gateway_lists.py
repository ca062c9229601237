"""Lists over HTTP: kept while they are true, longer than a message of the bus, 304 to who knows them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from chassis.memory_bus import MemoryBus
from schemas.queries import ListVms
from services.gateway.settings import LimitSettings
from tests.fixtures.gateway import AS_IT_CAME, GatewayUnderTest, gateway_on


def page(*items: int, after: str | None = None) -> bytes:
    return msgspec.json.encode({"items": items} | ({"next": after} if after else {}))


def asked(gateway: GatewayUnderTest) -> list[tuple[int, str | None]]:
    """The pages that were made: their limit and cursor."""
    return [(each.limit, each.after) for each in gateway.inventory.asked]


@pytest.mark.parametrize("path", ["/v1/vms", "/v1/hosts"])
async def test_a_list_is_made_once_for_as_long_as_its_tag_stands(
    gateway: GatewayUnderTest, path: str
) -> None:
    inventory = gateway.inventory
    inventory.tag, inventory.pages = "t1", {None: page(1)}
    found = [(await gateway.http.get(path)).content for _ in range(3)]
    assert (found, len(inventory.asked)) == ([page(1)] * 3, 1)

    inventory.tag, inventory.pages = "t2", {None: page(2)}
    found = [(await gateway.http.get(path)).content for _ in range(3)]
    assert (found, len(inventory.asked)) == ([page(2)] * 3, 2)


async def test_other_questions_have_other_answers(gateway: GatewayUnderTest) -> None:
    gateway.inventory.tag, gateway.inventory.pages = "t1", {None: page(1)}
    for query in ("", "?limit=2", "?host=h1", "?label=a=b", "?at=2026-01-01T00:00:00Z"):
        assert (await gateway.http.get(f"/v1/vms{query}")).status_code == 200
    assert len(gateway.inventory.asked) == 5


async def test_a_list_without_a_tag_passes_through_as_it_came(gateway: GatewayUnderTest) -> None:
    answers = [await gateway.http.get("/v1/vms") for _ in range(2)]
    assert [each.content for each in answers] == [AS_IT_CAME] * 2
    assert ["etag" in each.headers for each in answers] == [False] * 2
    assert len(gateway.inventory.asked) == 2


@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [
        ('"t1"', 304),
        ('W/"t1"', 304),
        ('"t0", "t1"', 304),
        ("*", 304),
        ('"t0"', 200),
        ("t1", 200),
        ("", 200),
    ],
)
async def test_a_client_that_knows_the_list_is_told_that_it_is_still_true(
    gateway: GatewayUnderTest, if_none_match: str, status: int
) -> None:
    gateway.inventory.tag, gateway.inventory.pages = "t1", {None: page(1)}
    answer = await gateway.http.get("/v1/vms", headers={"If-None-Match": if_none_match})
    assert answer.status_code == status
    assert answer.content == (b"" if status == 304 else page(1))
    assert answer.headers["etag"] == '"t1"'
    assert answer.headers["cache-control"] == "private, no-cache"
    assert ("content-length" in answer.headers) == (status == 200)


async def test_a_page_that_a_message_could_not_hold_is_put_together(
    gateway: GatewayUnderTest,
) -> None:
    inventory = gateway.inventory
    inventory.tag = "t1"
    inventory.pages = {
        None: page(1, 2, after="a"),
        "a": page(3, after="b"),
        "b": page(4, after="c"),
    }
    answers = [await gateway.http.get("/v1/vms?limit=4") for _ in range(2)]
    assert [each.content for each in answers] == [page(1, 2, 3, 4, after="c")] * 2
    assert asked(gateway) == [(4, None), (2, "a"), (1, "b")]


async def test_a_page_ends_where_something_changed_while_it_was_put_together(
    gateway: GatewayUnderTest,
) -> None:
    inventory = gateway.inventory
    inventory.tag = "t1"
    inventory.pages = {None: page(1, after="a"), "a": page(2)}

    def changed_after_the_first() -> None:
        inventory.tag = f"t{len(inventory.asked)}"

    inventory.before_page = changed_after_the_first
    answer = await gateway.http.get("/v1/vms?limit=4")
    assert (answer.content, answer.headers["etag"]) == (page(1, after="a"), '"t1"')


async def test_a_page_is_made_no_longer_than_the_settings_allow(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    limits = LimitSettings(page_bytes=2 * len(page(1, after="a")))
    async with gateway_on(gateway_bus, tmp_path, limits=limits) as gateway:
        gateway.inventory.tag = "t1"
        gateway.inventory.pages = {
            None: page(1, after="a"),
            "a": page(2, after="b"),
            "b": page(3, after="c"),
        }
        answer = await gateway.http.get("/v1/vms?limit=9")
    assert answer.content == page(1, 2, after="b")


async def test_nothing_is_kept_where_the_settings_say_so(
    gateway_bus: MemoryBus, tmp_path: Path
) -> None:
    async with gateway_on(gateway_bus, tmp_path, limits=LimitSettings(kept_bytes=0)) as gateway:
        gateway.inventory.tag, gateway.inventory.pages = "t1", {None: page(1)}
        found = [(await gateway.http.get("/v1/vms")).content for _ in range(2)]
    assert found == [page(1)] * 2
    assert gateway.inventory.asked == [ListVms()] * 2


async def test_an_inventory_that_went_away_takes_what_is_kept_along(
    gateway: GatewayUnderTest,
) -> None:
    gateway.inventory.tag = "t1"
    assert (await gateway.http.get("/v1/vms")).status_code == 200
    gateway.inventory.away = True
    answer = await gateway.http.get("/v1/vms")
    assert answer.status_code == 503
