"""The routes of subscriptions. How they are answered stands in `subscriptions`.

None of them changes anything but where a reader stands: they begin no operation.
"""

from __future__ import annotations

from typing import Any

from schemas.subscriptions import (
    SettledEvents,
    SettleEvents,
    Subscription,
    SubscriptionState,
    TakeEvents,
    TakenEvents,
)
from services.gateway import subscriptions
from services.gateway.model import Nothing, SubscriptionRequest
from services.gateway.route import Route

SUBSCRIPTIONS: tuple[Route[Any, Any], ...] = (
    Route(
        method="GET",
        path="/v1/subscriptions",
        name="list_subscriptions",
        summary="List subscriptions, with how many events wait under each",
        handler=subscriptions.list_all,
        answer=SubscriptionState,
        query=Nothing,
        body=Nothing,
        page=True,
    ),
    Route(
        method="PUT",
        path="/v1/subscriptions/{name}",
        name="begin_subscription",
        summary="Make a name under which programs share events, or change which",
        description="Each event is handed out until somebody has settled it: at least once.",
        handler=subscriptions.begin,
        answer=Subscription,
        query=Nothing,
        body=SubscriptionRequest,
        check=subscriptions.errors,
        asks=True,
    ),
    Route(
        method="DELETE",
        path="/v1/subscriptions/{name}",
        name="end_subscription",
        summary="Forget a subscription and where it stood",
        handler=subscriptions.end,
        answer=SubscriptionState,
        query=Nothing,
        body=Nothing,
        asks=True,
    ),
    Route(
        method="POST",
        path="/v1/subscriptions/{name}/take",
        name="take_events",
        summary="Take the next events of a subscription, waiting for them",
        description="What is not settled within the lease is handed out again.",
        handler=subscriptions.take,
        answer=TakenEvents,
        query=Nothing,
        body=TakeEvents,
        asks=True,
    ),
    Route(
        method="POST",
        path="/v1/subscriptions/{name}/settle",
        name="settle_events",
        summary="Say what became of events that were taken",
        description="`dead` goes to the dead letters with its reason.",
        handler=subscriptions.settle,
        answer=SettledEvents,
        query=Nothing,
        body=SettleEvents,
        asks=True,
    ),
)
