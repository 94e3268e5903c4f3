"""Faults between server and client: replies that come late, and replies that never come.

In both the request *was* executed. That is how every OPC UA server behaves behind a bad link, and the
reason why the product may conclude nothing from a reply. And what servers do to subscriptions: refuse them,
watch fewer items than asked, publish slower than asked, or fall silent without a word.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server import binary_server_asyncio
from asyncua.server.subscription_service import SubscriptionService
from asyncua.server.uaprocessor import UaProcessor

WRITE_REQUEST = ua.NodeId(ua.ObjectIds.WriteRequest_Encoding_DefaultBinary)


@dataclass
class WireFaults:
    """What is wrong with the link now."""

    delay_ms: int = 0
    drop_writes: int = 0
    lose_writes: int = 0
    quality: int = ua.StatusCodes.Good
    refuse_subscriptions: bool = False
    max_items: int | None = None
    slowest_publish_ms: int = 0
    mute: bool = False


def install(faults: WireFaults) -> None:
    """Lets every connection made from now on suffer these faults (asyncua has no hook, but one name)."""

    class FaultyProcessor(UaProcessor):
        async def _process_message(self, typeid: Any, *rest: Any) -> Any:
            if typeid == WRITE_REQUEST and faults.lose_writes > 0:
                faults.lose_writes -= 1
                return True
            return await super()._process_message(typeid, *rest)

        def send_response(self, requesthandle: Any, seqhdr: Any, response: Any, *rest: Any, **named: Any) -> None:
            if isinstance(response, ua.WriteResponse) and faults.drop_writes > 0:
                faults.drop_writes -= 1
                return
            if isinstance(response, ua.PublishResponse) and faults.mute:
                return
            if isinstance(response, ua.ReadResponse) and faults.quality != ua.StatusCodes.Good:
                status = ua.StatusCode(ua.UInt32(faults.quality))
                response.Results = [replace(value, StatusCode_=status) for value in response.Results]
            send = super().send_response
            if faults.delay_ms and isinstance(response, ua.ReadResponse | ua.WriteResponse):
                later = asyncio.get_running_loop().call_later
                later(faults.delay_ms / 1000, lambda: send(requesthandle, seqhdr, response, *rest, **named))
            else:
                send(requesthandle, seqhdr, response, *rest, **named)

    binary_server_asyncio.UaProcessor = FaultyProcessor


def limit(service: SubscriptionService, faults: WireFaults) -> None:
    """Lets this server's subscriptions suffer the faults."""
    create, watch = service.create_subscription, service.create_monitored_items

    async def create_subscription(params: Any, *rest: Any, **named: Any) -> Any:
        if faults.refuse_subscriptions:
            raise ServiceError(ua.StatusCodes.BadTooManySubscriptions)
        params.RequestedPublishingInterval = max(params.RequestedPublishingInterval, faults.slowest_publish_ms)
        return await create(params, *rest, **named)

    async def create_monitored_items(params: Any) -> Any:
        asked = params.ItemsToCreate
        params.ItemsToCreate = asked[: faults.max_items]
        refused = ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(ua.StatusCodes.BadTooManyMonitoredItems))
        return await watch(params) + [refused] * (len(asked) - len(params.ItemsToCreate))

    service.create_subscription = create_subscription
    service.create_monitored_items = create_monitored_items
