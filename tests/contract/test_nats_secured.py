"""The bus by TLS, and logins by nkey and by `.creds` file, against a real nats-server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nkeys
import pytest
import uvloop

from chassis.bus import Unavailable
from chassis.nats import NatsSettings, connect
from tests.fixtures.certificates import Authority, Certificate
from tests.fixtures.nats import NatsServer

PATIENCE_S = 5.0
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]

Loop = Callable[[], asyncio.AbstractEventLoop]


async def hears_itself(settings: NatsSettings) -> bool:
    """Whether what is sent comes back."""
    async with (
        asyncio.timeout(PATIENCE_S),
        connect(settings, name="test") as bus,
        bus.listen("greetings") as heard,
    ):
        await bus.send("greetings", b"hello")
        return (await anext(heard)).data == b"hello"


def tls(served: Certificate, *, clients: Path | None = None, first: bool = False) -> str:
    """What makes the server speak TLS, and want its clients' certificates by `clients`."""
    lines = [f'cert_file: "{served.certificate}"', f'key_file: "{served.key}"']
    if clients is not None:
        lines += [f'ca_file: "{clients}"', "verify: true"]
    if first:
        lines.append("handshake_first: true")
    return "tls { " + "\n".join(lines) + " }\n"


def to(server: NatsServer, **more: Any) -> NatsSettings:
    return NatsSettings(urls=(server.url,), first_connection_s=1.0, **more)


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_the_server_is_trusted_by_its_authority(
    own_nats_server: NatsServer, authority: Authority, loop: Loop
) -> None:
    own_nats_server.more_config = tls(authority.sign("bus"))
    own_nats_server.restart()

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(hears_itself(to(own_nats_server, tls_ca_file=str(authority.ca_file))))


async def test_a_server_that_strangers_vouch_for_is_not_spoken_to(
    own_nats_server: NatsServer, authority: Authority, stranger: Authority
) -> None:
    own_nats_server.more_config = tls(stranger.sign("bus"))
    own_nats_server.restart()

    with pytest.raises(Unavailable):
        await hears_itself(to(own_nats_server, tls_ca_file=str(authority.ca_file)))


async def test_a_certificate_of_another_name_is_not_enough(
    own_nats_server: NatsServer, authority: Authority
) -> None:
    own_nats_server.more_config = tls(authority.sign("bus"))
    own_nats_server.restart()
    ca_file = str(authority.ca_file)

    with pytest.raises(Unavailable):
        await hears_itself(to(own_nats_server, tls_ca_file=ca_file, tls_hostname="bus.example.org"))
    assert await hears_itself(to(own_nats_server, tls_ca_file=ca_file, tls_hostname="localhost"))


async def test_the_server_may_want_a_certificate_from_us(
    own_nats_server: NatsServer, authority: Authority
) -> None:
    own_nats_server.more_config = tls(authority.sign("bus"), clients=authority.ca_file)
    own_nats_server.restart()
    own = authority.sign("scheduler")
    ca_file = str(authority.ca_file)

    assert await hears_itself(
        to(
            own_nats_server,
            tls_ca_file=ca_file,
            tls_certificate_file=str(own.certificate),
            tls_key_file=str(own.key),
        )
    )
    with pytest.raises(Unavailable):
        await hears_itself(to(own_nats_server, tls_ca_file=ca_file))


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_tls_may_come_before_the_servers_greeting(
    own_nats_server: NatsServer, authority: Authority, loop: Loop
) -> None:
    own_nats_server.more_config = tls(authority.sign("bus"), first=True)
    own_nats_server.greets = False
    own_nats_server.restart()
    settings = to(own_nats_server, tls_ca_file=str(authority.ca_file), tls_first=True)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(hears_itself(settings))


# --- keys instead of passwords ------------------------------------------------------------


def key_pair(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def seed_file(pair: nkeys.KeyPair, path: Path) -> Path:
    path.write_bytes(bytes(pair.seed))
    return path


def public(pair: nkeys.KeyPair) -> str:
    return bytes(pair.public_key).decode()


async def test_an_nkey_is_login_enough(own_nats_server: NatsServer, tmp_path: Path) -> None:
    ours, theirs = (key_pair(nkeys.PREFIX_BYTE_USER) for _ in range(2))
    own_nats_server.more_config = f"authorization {{ users: [ {{ nkey: {public(ours)} }} ] }}\n"
    own_nats_server.restart()
    known, unknown = (
        to(own_nats_server, nkey_seed_file=str(seed_file(pair, tmp_path / name)))
        for name, pair in (("ours", ours), ("theirs", theirs))
    )

    assert await hears_itself(known)
    with pytest.raises(Unavailable):
        await hears_itself(unknown)


async def test_a_creds_file_is_login_enough(own_nats_server: NatsServer, tmp_path: Path) -> None:
    operator = key_pair(nkeys.PREFIX_BYTE_OPERATOR)
    account = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    system = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user = key_pair(nkeys.PREFIX_BYTE_USER)
    jetstream = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    limits = {"limits": {"conn": -1, "subs": -1, "data": -1, "payload": -1, **jetstream}}
    plain = {"limits": {"conn": -1, "subs": -1, "data": -1, "payload": -1}}
    preload = {
        public(account): jwt(account, by=operator, kind="account", claims=limits),
        public(system): jwt(system, by=operator, kind="account", claims=plain),
    }
    listed = "\n".join(f"{key}: {token}" for key, token in preload.items())
    own_nats_server.more_config = (
        f"operator: {jwt(operator, by=operator, kind='operator', claims={})}\n"
        f"system_account: {public(system)}\n"
        f"resolver: MEMORY\nresolver_preload {{\n{listed}\n}}\n"
    )
    own_nats_server.restart()
    creds = tmp_path / "scheduler.creds"
    creds.write_text(
        creds_text(jwt(user, by=account, kind="user", claims={}), bytes(user.seed).decode())
    )

    assert await hears_itself(to(own_nats_server, credentials_file=str(creds)))
    with pytest.raises(Unavailable):
        await hears_itself(to(own_nats_server))


def jwt(subject: nkeys.KeyPair, *, by: nkeys.KeyPair, kind: str, claims: dict[str, Any]) -> str:
    """A NATS JWT: what `subject` is, signed by `by`."""
    unlimited = {"subs": -1, "data": -1, "payload": -1} if kind == "user" else {}
    body = {
        "jti": base64.b32encode(os.urandom(32)).decode().rstrip("="),
        "iat": 1_700_000_000,
        "iss": public(by),
        "name": kind,
        "sub": public(subject),
        "nats": {"type": kind, "version": 2, **unlimited, **claims},
    }
    signed = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    return f"{signed}.{base64url(by.sign(signed.encode()))}"


def part(value: dict[str, Any]) -> str:
    return base64url(json.dumps(value).encode())


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def creds_text(token: str, seed: str) -> str:
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
