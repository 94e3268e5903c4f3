"""The control channel of tests: what happens at the farm, and not through OPC UA.

JSON lines over loopback TCP. An op is a method here named `op_<name>`; its keyword arguments are the
fields of the request. Every request is answered, also one that makes no sense.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from asyncua import ua

from farm import FarmError
from machine import Machine
from plc import Plc
from wire import WireFaults
from words import U32

Answer = dict[str, Any]


class Control:
    """Serves one PLC."""

    def __init__(self, plc: Plc, wire: WireFaults) -> None:
        self._plc = plc
        self._wire = wire
        self._server: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Listens on loopback and returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        return self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stops listening."""
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            op = getattr(self, f"op_{request.pop('op')}")
            async with self._plc.lock:
                return {"ok": True, **(await op(**request) or {})}
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def _machine(self, name: str) -> Machine:
        if name not in self._plc.machines:
            raise FarmError(f"no feeder {name!r}")
        return self._plc.machines[name]

    def _machines(self, name: str | None) -> list[Machine]:
        return [self._machine(name)] if name else list(self._plc.machines.values())

    async def op_edit_config(self, feeder: str, **changes: Any) -> Answer:
        machine = self._machine(feeder)
        config = machine.mem.config.edited(changes)
        machine.take_config(config, by_client=False)
        return {"rev": config.rev}

    async def op_fault(self, robot: str, code: int) -> None:
        if not 1 <= code <= U32:
            raise FarmError("a fault code is from 1 to 2^32 - 1")
        self._machine(robot).set_fault(code)

    async def op_clear_fault(self, robot: str) -> None:
        self._machine(robot).set_fault(0)

    async def op_local(self, on: bool, robot: str | None = None) -> None:
        for machine in self._machines(robot):
            machine.mem.local = on
            machine.dirty = True

    async def op_feed(self, robot: str, mg: int) -> None:
        self._machine(robot).feed_by_hand(mg)

    async def op_lose_memory(self) -> Answer:
        await self._plc.lose_memory()
        return {"epoch": self._plc.epoch}

    async def op_set(self, tag: str, value: Any) -> None:
        name, _, what = tag.partition(".")
        machine = self._machine(name)
        if what in INPUTS:
            attribute, kind = INPUTS[what]
            setattr(machine, attribute, kind(value))
        elif what == "Hopper_mg":
            machine.mem.hopper_mg = min(max(int(value), 0), U32)
            machine.dirty = True
        elif tag in self._plc.tags.by_name:
            await self._plc.tags.by_name[tag].write_as_client(value)
        else:
            raise FarmError(f"no tag {tag!r}")

    async def op_lie(self, kind: str, n: int = 1, feeder: str | None = None) -> None:
        if kind not in ("revert_after_scans", "none") or n < 1:
            raise FarmError("kind is revert_after_scans (n of 1 or more) or none")
        for machine in self._machines(feeder):
            machine.lie_scans = n if kind == "revert_after_scans" else None

    async def op_freeze(self, on: bool) -> None:
        self._plc.frozen = on

    async def op_slow(self, ms: int) -> None:
        self._wire.delay_ms = ms

    async def op_drop_replies(self, n: int) -> None:
        self._wire.drop_writes = n

    async def op_subscriptions(
        self, refuse: bool = False, max_items: int | None = None, slowest_ms: int = 0, mute: bool = False
    ) -> Answer:
        self._wire.refuse_subscriptions, self._wire.max_items = refuse, max_items
        self._wire.slowest_publish_ms, self._wire.mute = slowest_ms, mute
        return {"open": self._plc.subscriptions()}

    async def op_lose_writes(self, n: int) -> None:
        self._wire.lose_writes = n

    async def op_quality(self, code: str) -> None:
        self._wire.quality = getattr(ua.StatusCodes, code)

    async def op_ledger(self) -> Answer:
        return {"lines": self._plc.ledger.lines()}

    async def op_state(self) -> Answer:
        plc = self._plc
        feeders = {name: machine.snapshot() for name, machine in plc.machines.items()}
        return {"epoch": plc.epoch, "plc_time_s": plc.clock.now_s(), "frozen": plc.frozen, "feeders": feeders}


INPUTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "Oxygen": ("oxygen_mg_per_l", float),
    "Temperature": ("temperature_c", float),
    "Interlock": ("external_interlock", bool),
    "MotorDelay_ms": ("motor_delay_ms", int),
    "Rate_mg_per_s": ("rate_mg_per_s", int),
}
