"""Faults between server and client: replies that come late, and replies that never come.

In both the request *was* executed. That is how every OPC UA server behaves behind a bad link, and the
reason why the product may conclude nothing from a reply.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from asyncua import ua
from asyncua.server import binary_server_asyncio
from asyncua.server.uaprocessor import UaProcessor


@dataclass
class WireFaults:
    """What is wrong with the link now."""

    delay_ms: int = 0
    drop_writes: int = 0


def install(faults: WireFaults) -> None:
    """Lets every connection made from now on suffer these faults (asyncua has no hook, but one name)."""

    class FaultyProcessor(UaProcessor):
        def send_response(self, requesthandle: Any, seqhdr: Any, response: Any, *rest: Any, **named: Any) -> None:
            if isinstance(response, ua.WriteResponse) and faults.drop_writes > 0:
                faults.drop_writes -= 1
                return
            send = super().send_response
            if faults.delay_ms and isinstance(response, ua.ReadResponse | ua.WriteResponse):
                later = asyncio.get_running_loop().call_later
                later(faults.delay_ms / 1000, lambda: send(requesthandle, seqhdr, response, *rest, **named))
            else:
                send(requesthandle, seqhdr, response, *rest, **named)

    binary_server_asyncio.UaProcessor = FaultyProcessor
