"""One HTTP connection pool to a gateway: sends, retries what may be retried, turns answers into errors.

Knows nothing of VMs or hosts. A request that changes something carries one Idempotency-Key through all
its attempts, so that an answer that got lost is asked for again instead of doing the work twice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from vireo.errors import Unavailable, error_of, unreachable, unreadable
from vireo.settings import ClientSettings

T = TypeVar("T")

Query = list[tuple[str, str]]


class Transport:
    """Not for use by more than one event loop."""

    def __init__(
        self,
        url: str,
        token: str | None,
        settings: ClientSettings,
        *,
        ca_file: str | None = None,
    ) -> None:
        self.url = checked_url(url)
        self.settings = settings
        headers = {"Accept": "application/json", "User-Agent": "vireo-python"}
        if token:
            headers["Authorization"] = f"Bearer {_checked_token(token)}"
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            verify=_trust(self.url, ca_file),
            # A proxy has no business between a client and its own machine.
            trust_env=not is_loopback(self.url),
            timeout=httpx.Timeout(settings.request_timeout_s, connect=settings.connect_timeout_s),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def read(
        self, path: str, type: type[T], *, query: Query | None = None, wait_s: float = 0
    ) -> T:
        """GET `path`; the server may take `wait_s` seconds longer than usual."""
        body = await self._send("GET", path, query=query, wait_s=wait_s)
        return self._decode(body, type)

    async def ask(self, path: str, type: type[T], *, body: Any) -> T:
        """POST a question: nothing is changed by it. The server may take long to work it out."""
        answer = await self._send(
            "POST",
            path,
            headers={"Content-Type": "application/json"},
            content=msgspec.json.encode(body),
            wait_s=self.settings.question_s,
        )
        return self._decode(answer, type)

    async def change(
        self,
        method: str,
        path: str,
        type: type[T],
        *,
        body: Any = None,
        query: Query | None = None,
        key: str | None = None,
        wait_s: float = 0,
    ) -> T:
        """Send something that changes the world, with an idempotency key (made here unless given).
        The server may take `wait_s` seconds longer than usual."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        answer = await self._send(
            method, path, query=query, headers=headers, content=content, wait_s=wait_s
        )
        return self._decode(answer, type)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query, headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """One attempt at a stream: the pieces of its body. Raises VireoError."""
        request = self._http.build_request(
            "GET",
            path,
            params=_params(query),
            headers=headers,
            timeout=httpx.Timeout(
                self.settings.event_silence_s, connect=self.settings.connect_timeout_s
            ),
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    body = await response.aread()
                    raise error_of(response.status_code, response.headers, body)
                yield response.aiter_raw()
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise unreachable(self.url, _words(error)) from error

    async def pause(self, attempt: int, *, at_least_s: float = 0) -> None:
        """Sleep before the attempt after `attempt` (the first is 1)."""
        jitter = secrets.randbelow(1000) / 1000
        await asyncio.sleep(delay_s(attempt, self.settings, jitter=jitter, at_least_s=at_least_s))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        wait_s: float = 0,
    ) -> bytes:
        request_timeout = httpx.Timeout(
            self.settings.request_timeout_s + wait_s, connect=self.settings.connect_timeout_s
        )
        attempt = 1
        while True:
            request = self._http.build_request(
                method,
                path,
                params=_params(query),
                headers=headers,
                content=content,
                timeout=request_timeout,
            )
            try:
                return await self._attempt(request)
            except Unavailable as error:
                if attempt >= self.settings.attempts:
                    raise
                await self.pause(attempt, at_least_s=error.retry_after_s or 0)
            attempt += 1

    async def _attempt(self, request: httpx.Request) -> bytes:
        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            raise unreachable(self.url, _words(error)) from error
        except httpx.DecodingError as error:
            raise unreadable(self.url, str(error)) from error
        if not response.is_success:
            raise error_of(response.status_code, response.headers, response.content)
        return response.content

    def _decode(self, body: bytes, type: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=type)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise unreadable(self.url, str(error)) from error


def delay_s(
    attempt: int, settings: ClientSettings, *, jitter: float, at_least_s: float = 0
) -> float:
    """The pause after `attempt` (1, 2, …): doubling, with half of it left to `jitter` (0 to 1)."""
    # Bounded before the power is taken: 2.0 ** 5000 is an OverflowError.
    doubled = settings.backoff_first_s * 2.0 ** min(attempt - 1, 32)
    full = min(max(doubled, at_least_s), settings.backoff_most_s)
    return full * (0.5 + jitter / 2) if full > at_least_s else full


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises ValueError for what is no gateway's address."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        # Said without showing it: what stands before the @ is a secret.
        raise ValueError("the address of a gateway holds no user or password; use a token")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an address of a gateway: {url!r} (http://HOST:PORT or https://…)")
    if parts.query or parts.fragment:
        raise ValueError("the address of a gateway has no query and no fragment")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the address names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_token(token: str) -> str:
    # Checked here because the HTTP library would quote the whole header in its complaint.
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("the token holds characters that no token has")
    return token


def _trust(url: str, ca_file: str | None) -> ssl.SSLContext:
    if url.startswith("http://"):
        # Trusts nobody, and spares plain connections the reading of the system's certificates.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context(cafile=ca_file)


def _params(query: Query | None) -> httpx.QueryParams | None:
    return httpx.QueryParams(list(query)) if query else None


def _words(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    return str(error) or type(error).__name__
