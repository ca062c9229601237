"""The gateway as a `Service`: its loops, its readiness. What `chassis.run` is handed."""

from __future__ import annotations

from functools import partial

from chassis.service import Rig, Service
from services.gateway.app import make_app
from services.gateway.auth import ensure_admin, follow_tokens
from services.gateway.desk import Desk
from services.gateway.server import listen, serve
from services.gateway.settings import GatewaySettings


async def build(settings: GatewaySettings, rig: Rig) -> Service:
    """Make the first token if there is none, open the socket, and say what has to run."""
    desk = Desk(rig, settings)
    await ensure_admin(rig, settings.admin_token_file)
    listening = listen(settings)
    app = make_app(desk)
    return Service(
        description="HTTP in, commands out; questions to rpc; events as a stream",
        background=(
            partial(follow_tokens, rig.bus, desk.tokens),
            partial(serve, app, listening, desk),
        ),
        ready=lambda: rig.bus.connected and desk.tokens.ready,
    )
