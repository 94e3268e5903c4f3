"""An OPC UA client for tests, independent of the product: what does the PLC say itself?

    opc.py ENDPOINT [--user U --password P] read NODE...
    opc.py ENDPOINT write NODE TYPE VALUE        TYPE: Double, UInt32, Int32, Boolean, or UInt32[] with a JSON list
    opc.py ENDPOINT watch NODE SECS              one line at the start and one for each change
    opc.py ENDPOINT cfg|sts|hist ROBOT           the blocks, decoded

Nodes are named `F01.Portion`, in the namespace urn:feedlab:plc. Every answer is JSON on stdout, one value a
line; a failure is {"error": ...} and exit code 1.
"""

import argparse
import asyncio
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from asyncua import Client, Node, ua

from words import decode_cfg, decode_hist, decode_sts

NAMESPACE = "urn:feedlab:plc"
POLL_S = 0.02
BLOCKS: dict[str, tuple[str, Callable[[list[int]], Any]]] = {
    "cfg": ("CfgSts", decode_cfg),
    "sts": ("Sts", decode_sts),
    "hist": ("Hist", decode_hist),
}

CONVERT: dict[ua.VariantType, Callable[[Any], Any]] = {
    ua.VariantType.Double: float,
    ua.VariantType.Boolean: lambda value: str(value).lower() in ("true", "1"),
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("read").add_argument("nodes", nargs="+")
    write = verbs.add_parser("write")
    write.add_argument("node")
    write.add_argument("type")
    write.add_argument("value")
    watch = verbs.add_parser("watch")
    watch.add_argument("node")
    watch.add_argument("seconds", type=float)
    for verb in BLOCKS:
        verbs.add_parser(verb).add_argument("robot")
    return parser.parse_args()


def parse_value(kind: str, text: str) -> ua.Variant:
    """A typed value from the command line."""
    is_list = kind.endswith("[]")
    variant = ua.VariantType[kind.removesuffix("[]")]
    convert = CONVERT.get(variant, int)
    value = [convert(item) for item in json.loads(text)] if is_list else convert(text)
    return ua.Variant(value, variant)


def described(data: ua.DataValue) -> dict[str, Any]:
    """A value with what the server says about it; numbers that JSON does not know become text."""
    value = data.Value.Value if data.Value else None
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    return {
        "value": value,
        "type": data.Value.VariantType.name if data.Value else None,
        "status": data.StatusCode.name,
        "source_time": data.SourceTimestamp.isoformat() if data.SourceTimestamp else None,
    }


def emit(answer: Any) -> None:
    """One line of output."""
    print(json.dumps(answer), flush=True)


async def watch(node: Node, name: str, seconds: float) -> None:
    """Reads until the time is over and tells each change."""
    start, last = time.monotonic(), object()
    while (elapsed := time.monotonic() - start) < seconds:
        value = described(await node.read_data_value(raise_on_bad_status=False))["value"]
        if value != last:
            emit({"t": round(elapsed, 3), name: value})
            last = value
        await asyncio.sleep(POLL_S)


async def act(client: Client, args: argparse.Namespace) -> None:
    """Runs the verb on a connected client."""
    namespace = await client.get_namespace_index(NAMESPACE)

    def node(name: str) -> Node:
        return client.get_node(ua.NodeId(name, namespace))

    if args.verb == "read":
        for name in args.nodes:
            data = await node(name).read_data_value(raise_on_bad_status=False)
            emit({name: described(data)})
    elif args.verb == "write":
        await node(args.node).write_value(parse_value(args.type, args.value))
        emit({args.node: "written"})
    elif args.verb == "watch":
        await watch(node(args.node), args.node, args.seconds)
    else:
        tag, decode = BLOCKS[args.verb]
        emit(decode(await node(f"{args.robot}.{tag}").read_value()))


async def main() -> int:
    """Connects, acts, and says what went wrong if it did."""
    args = arguments()
    logging.disable(logging.CRITICAL)
    client = Client(args.endpoint, timeout=5)
    if args.user:
        client.set_user(args.user)
        client.set_password(args.password)
    try:
        async with client:
            await act(client, args)
    except (OSError, ValueError, KeyError, TimeoutError, ua.UaError) as error:
        emit({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
