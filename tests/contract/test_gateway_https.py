"""The gateway by HTTPS, and the SDK that trusts its authority."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from chassis.clock import SystemClock
from chassis.memory_bus import memory_bus
from schemas import samples
from services.gateway.settings import TlsSettings
from tests.fixtures.certificates import Authority
from tests.fixtures.gateway import TOKEN, gateway_on
from vireo import Client, ClientSettings, Unavailable

QUICK = ClientSettings(attempts=1, patience_s=2)


async def test_the_sdk_trusts_the_authority_that_it_is_told_to(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    served = authority.sign("gateway")
    tls = TlsSettings(certificate_file=served.certificate, key_file=served.key)
    trust = ssl.create_default_context(cafile=authority.ca_file)
    async with (
        memory_bus(SystemClock()) as bus,
        gateway_on(bus, tmp_path, trust=trust, tls=tls) as gateway,
    ):
        ca_file = str(authority.ca_file)
        async with Client(gateway.url, TOKEN, ca_file=ca_file, settings=QUICK) as client:
            assert (await client.vms.get(samples.VM)).id == samples.VM

        ca_file = str(stranger.ca_file)
        async with Client(gateway.url, TOKEN, ca_file=ca_file, settings=QUICK) as client:
            with pytest.raises(Unavailable, match="certificate"):
                await client.vms.get(samples.VM)
