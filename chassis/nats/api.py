"""JetStream's JSON API over raw requests: what streams and consumers are, and changing them.

The client library's own classes lack newer fields (atomic batches, message TTLs), so the
configurations stay the server's JSON here.
"""

from __future__ import annotations

import json
from typing import Any

from chassis.bus import NoResponders, Unavailable
from chassis.nats.answers import api_error, exception_of
from chassis.nats.link import Link

Json = dict[str, Any]


class Api:
    """Every method raises NotFound, Unavailable or BusError."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def stream_info(self, stream: str) -> Json:
        return await self._ask(f"STREAM.INFO.{stream}", {})

    async def create_stream(self, stream: str, config: Json) -> Json:
        return await self._ask(f"STREAM.CREATE.{stream}", config)

    async def update_stream(self, stream: str, config: Json) -> Json:
        return await self._ask(f"STREAM.UPDATE.{stream}", config)

    async def purge_stream(self, stream: str, subject: str) -> Json:
        return await self._ask(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def last_message(self, stream: str, subject: str) -> Json:
        return await self._ask(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})

    async def message_from(self, stream: str, sequence: int) -> Json:
        wish = {"seq": sequence, "next_by_subj": ">"}
        return await self._ask(f"STREAM.MSG.GET.{stream}", wish)

    async def consumer_info(self, stream: str, consumer: str) -> Json:
        return await self._ask(f"CONSUMER.INFO.{stream}.{consumer}", {})

    async def consumers(self, stream: str, *, offset: int) -> Json:
        """One page of what `consumer_info` tells of each, with their number in all as `total`."""
        return await self._ask(f"CONSUMER.LIST.{stream}", {"offset": offset})

    async def create_consumer(self, stream: str, consumer: str, config: Json) -> Json:
        wish = {"stream_name": stream, "config": config, "action": "create"}
        return await self._ask(f"CONSUMER.CREATE.{stream}.{consumer}", wish)

    async def update_consumer(self, stream: str, consumer: str, config: Json) -> Json:
        wish = {"stream_name": stream, "config": config, "action": "update"}
        return await self._ask(f"CONSUMER.CREATE.{stream}.{consumer}", wish)

    async def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        await self._ask(f"CONSUMER.UNPIN.{stream}.{consumer}", {"group": group})

    async def delete_consumer(self, stream: str, consumer: str) -> Json:
        return await self._ask(f"CONSUMER.DELETE.{stream}.{consumer}", {})

    async def _ask(self, verb: str, wish: Json) -> Json:
        try:
            answer = await self._link.call(
                f"$JS.API.{verb}",
                json.dumps(wish).encode(),
                timeout_s=self._link.settings.call_timeout_s,
            )
        except NoResponders as error:
            raise Unavailable("JetStream does not answer") from error
        decoded: Json = json.loads(answer.data)
        error_found = api_error(decoded)
        if error_found is not None:
            raise exception_of(error_found)
        return decoded
