"""Runs the test farm's PLC. See README.md beside this file.

The command line is read before asyncua is loaded: a mistake in it shows at once, not after seconds.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path

from farm import FeederSpec, load_farm


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="OPC UA port, 0 for a free one")
    parser.add_argument("--dir", type=Path, required=True, help="retained memory and ledger")
    parser.add_argument("--user", help="require this user name")
    parser.add_argument("--password", default="", help="and this password")
    parser.add_argument("--config", type=Path, help="farm file")
    parser.add_argument("--scan-ms", type=int, default=50)
    parser.add_argument("--profile", choices=("block", "scalar", "both"), default="both")
    parser.add_argument("--control", type=int, default=0, help="port of the control channel, 0 for a free one")
    return parser.parse_args()


async def serve(args: argparse.Namespace, specs: list[FeederSpec]) -> None:
    """Serves until SIGTERM or SIGINT."""
    gc.disable()  # the standard address space is a mass of small objects that all stay
    from asyncua import Server, ua
    from asyncua.crypto.permission_rules import User, UserRole
    from asyncua.server.user_managers import UserManager

    import wire
    from control import Control
    from plc import Plc

    class OneUser(UserManager):
        def get_user(
            self, iserver: object, username: str | None = None, password: str | None = None, certificate: object = None
        ) -> User | None:
            right = args.user is None or (username, password) == (args.user, args.password)
            return User(role=UserRole.User) if right else None

    faults = wire.WireFaults()
    wire.install(faults)
    server = Server(user_manager=OneUser())
    server.disable_clock()  # its task delays a stop by up to a second; the scan keeps the time instead
    await server.init()
    wire.limit(server.iserver.subscription_service, faults)
    server.set_endpoint(f"opc.tcp://127.0.0.1:{args.port}/feedlab")
    server.set_server_name("Feedlab PLC")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    server.set_identity_tokens([ua.UserNameIdentityToken if args.user else ua.AnonymousIdentityToken])
    plc = Plc(server, specs, args.dir)
    await plc.start()
    gc.freeze()
    gc.enable()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    control = Control(plc, faults)
    async with server:
        scanning = asyncio.create_task(plc.run(args.scan_ms / 1000))
        scanning.add_done_callback(lambda _: stop.set())
        port = server.bserver.port
        ready = {
            "ready": True,
            "port": port,
            "endpoint": f"opc.tcp://127.0.0.1:{port}/feedlab",
            "control": await control.listen(args.control),
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        await stop.wait()
        control.close()
        if not scanning.cancel():
            scanning.result()
        plc.power_off()


def main() -> None:
    """Entry point."""
    args = arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("asyncua.server.server").setLevel(logging.ERROR)  # warns of plain passwords on loopback
    try:
        specs = load_farm(args.config, args.profile)
    except (OSError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"farm file: {error}")
    args.dir.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(args, specs))


if __name__ == "__main__":
    main()
