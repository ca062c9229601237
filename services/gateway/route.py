"""What a route is, as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Literal

from litestar.types import ASGIApp
from msgspec import Struct

from schemas.problems import FieldError
from services.gateway.answers import Answer
from services.gateway.asked import Asked, B, Q
from services.gateway.desk import Desk

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Route(Struct, Generic[Q, B], frozen=True, kw_only=True):
    """One route behind the token. `answer` is the resource it gives, or the one its page holds."""

    method: Method
    path: str
    name: str
    summary: str
    handler: Callable[[Desk, Asked[Q, B]], Awaitable[Answer | ASGIApp]]
    answer: type[Any]
    query: type[Q]
    body: type[B]
    check: Callable[[B], Iterable[FieldError]] | None = None
    page: bool = False
    yaml: bool = False
    """The body may also be YAML."""
    asks: bool = False
    """A POST that only asks: nothing is changed by it."""
    tagged: bool = False
    """Answers with a tag, and 304 to one who names it."""
    streams: bool = False
    """Answers server-sent events, too."""
    description: str = ""

    @property
    def tag(self) -> str:
        return self.path.split("/")[2]

    @property
    def writes(self) -> bool:
        return self.method != "GET" and not self.asks

    @property
    def status(self) -> int:
        return 202 if self.writes else 200

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path."""
        parts = self.path.split("/")
        return tuple(part.strip("{}") for part in parts if part.startswith("{"))
