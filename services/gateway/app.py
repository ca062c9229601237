"""The Litestar application, made of the table of routes, with the edge around it.

What belongs here: putting together, and what becomes of exceptions. Nothing is decided here.
"""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Litestar, Request, Response, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from services.gateway import handlers, openapi
from services.gateway.answers import Answer, Refused, internal, of_refusal, of_status, rendered
from services.gateway.asked import context_of, read
from services.gateway.desk import Desk
from services.gateway.edge import Edge
from services.gateway.model import Refusal
from services.gateway.route import Route
from services.gateway.routes import ROUTES

log = structlog.get_logger()


def make_app(desk: Desk) -> Edge:
    """The whole gateway as one ASGI application."""
    served = [_served(desk, route) for route in ROUTES]
    litestar = Litestar(
        route_handlers=[*served, _document(), *_health(desk)],
        exception_handlers={Refused: _refused, HTTPException: _http, Exception: _unforeseen},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=desk.settings.limits.body_bytes,
        debug=False,
        pdb_on_exception=False,
    )
    return Edge(litestar, desk)


def _served(desk: Desk, route: Route[Any, Any]) -> HTTPRouteHandler:
    async def handle(request: Request[Any, Any, Any]) -> ASGIApp:
        asked = await read(
            request, query=route.query, body=route.body, check=route.check, yaml=route.yaml
        )
        answer = await route.handler(desk, asked)
        return rendered(answer) if isinstance(answer, Answer) else answer

    return HTTPRouteHandler(
        route.path.replace("}", ":str}"),
        http_method=route.method,
        name=route.name,
        status_code=route.status,
    )(handle)


def _document() -> HTTPRouteHandler:
    document = Answer(body=openapi.document_bytes())

    @get("/openapi.json", name="openapi")
    async def handle() -> ASGIApp:
        return rendered(document)

    return handle


def _health(desk: Desk) -> list[HTTPRouteHandler]:
    @get("/health/live", name="live")
    async def live() -> ASGIApp:
        return rendered(await handlers.live(desk))

    @get("/health/ready", name="ready")
    async def ready() -> ASGIApp:
        return rendered(await handlers.ready(desk))

    return [live, ready]


def _refused(request: Request[Any, Any, Any], error: Refused) -> Response[bytes]:
    return _problem(request, error.refusal)


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own refusals: no such route, wrong method, body too large."""
    details = {
        404: f"There is nothing at {request.scope['path'][:200]}.",
        405: f"{request.method} is not possible here.",
        413: "The body is larger than this gateway takes.",
    }
    problem = of_status(error.status_code, details.get(error.status_code, ""))
    return _problem(request, Refusal(problem=problem), dict(error.headers or {}))


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("request_failed", path=request.scope["path"], exc_info=error)
    return _problem(request, Refusal(problem=internal(context_of(request.scope).request)))


def _problem(
    request: Request[Any, Any, Any], refusal: Refusal, headers: dict[str, str] | None = None
) -> Response[bytes]:
    answer = of_refusal(refusal, context_of(request.scope).request)
    return Response(
        content=answer.body,
        status_code=answer.status,
        media_type=answer.media_type,
        headers={**(headers or {}), **dict(answer.headers)},
    )
