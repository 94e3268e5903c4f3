"""The PLC: one retained memory, one clock, one scan over all its feeders.

A scan reads the tags, moves the machines, saves what changed and only then shows it, so that nothing is
ever visible that a power cut could undo.
"""

import asyncio
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from asyncua import Server

from block import BlockFace
from durable import Ledger, Memory, Record
from farm import FeederSpec
from machine import Machine
from scalar import ScalarFace
from tags import NAMESPACE, TagTable
from words import U32

CLOCK_RESERVE_S = 30
RESTAMP_S = 1.0


class Clock:
    """Seconds of running time that never go back within an epoch.

    Retained is a mark ahead of the time shown; a restart goes on from the mark. So the clock may jump
    forward by the reserve, which ages a waiting command, and never revives one.
    """

    def __init__(self, mark_s: int) -> None:
        self._base = mark_s
        self._zero = time.monotonic()
        self.mark_s = mark_s

    def now_s(self) -> int:
        """The time as `PlcTime_s` shows it."""
        return (self._base + int(time.monotonic() - self._zero)) & U32

    def reserve(self) -> bool:
        """Moves the mark on if time has nearly reached it; true if it has to be saved."""
        if self.now_s() + CLOCK_RESERVE_S // 2 < self.mark_s:
            return False
        self.mark_s = self.now_s() + CLOCK_RESERVE_S
        return True


class Plc:
    """The feeders of the farm file behind one OPC UA server."""

    def __init__(self, server: Server, specs: list[FeederSpec], directory: Path) -> None:
        self._server = server
        self._memory = Memory(directory)
        self.ledger = Ledger(directory)
        memory = self._memory.load()
        self.epoch: int = memory["epoch"] if memory else _new_epoch()
        self.clock = Clock(memory["clock_mark_s"] if memory else 0)
        known = memory["feeders"] if memory else {}
        self.machines = {spec.name: self._machine(spec, known.get(spec.name)) for spec in specs}
        self.faces: list[BlockFace | ScalarFace] = []
        self.tags: TagTable
        self.frozen = False
        self.lock = asyncio.Lock()  # a scan or an act of the control channel, not both
        self._heartbeat = 0
        self._restamp_at = 0.0

    def _machine(self, spec: FeederSpec, memory: Record | None) -> Machine:
        return Machine(spec, memory, self.ledger, self._save, self.clock.now_s, lambda: self.epoch)

    async def start(self) -> None:
        """Makes the tags, closes what a power loss left open, and runs the first scan."""
        self.tags = TagTable(self._server, await self._server.register_namespace(NAMESPACE))
        for machine in self.machines.values():
            face = BlockFace if machine.spec.profile == "block" else ScalarFace
            self.faces.append(await face.create(machine, self.tags))
        for machine in self.machines.values():
            machine.power_on()
        for start in list(self.ledger.open_runs.values()):
            lost = {"kind": "end", "dispensed_mg": None, "end": _wall_ms(), "state": "ABORTED", "reason": "POWER_LOSS"}
            self.ledger.append(start | lost)
        self.clock.reserve()
        self._save()
        await self.scan()

    async def run(self, period_s: float) -> None:
        """Scans for ever at this period; a late scan is not made up for."""
        due = time.monotonic()
        while True:
            due = max(due + period_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            async with self.lock:
                if not self.frozen:
                    await self.scan()

    async def scan(self) -> None:
        """One scan."""
        now = time.monotonic()
        self._heartbeat = (self._heartbeat + 1) & U32
        for face in self.faces:
            face.scan(self.epoch, self.clock.now_s())
        for machine in self.machines.values():
            machine.step(now)
        if self.clock.reserve() or any(machine.dirty for machine in self.machines.values()):
            self._save()
        await self._publish(now)

    async def _publish(self, now: float) -> None:
        restamp = now >= self._restamp_at
        if restamp:
            self._restamp_at = now + RESTAMP_S
            await self._server.iserver.current_time_node.write_value(datetime.now(UTC))
        for face in self.faces:
            await face.publish(self.epoch, self.clock.now_s(), self._heartbeat, restamp)

    async def lose_memory(self) -> None:
        """All retained memory is gone, as after a dead battery: a new epoch, everything from the farm file."""
        for machine in self.machines.values():
            machine.power_off()
            machine.lose_memory()
        self.epoch = _new_epoch()
        self._save()
        for face in self.faces:
            await face.clear()
        await self.scan()

    def subscriptions(self) -> int:
        """How many subscriptions are open."""
        return len(self._server.iserver.subscription_service.subscriptions)

    def power_off(self) -> None:
        """Ends running doses and keeps what was measured."""
        for machine in self.machines.values():
            machine.power_off()

    def _save(self) -> None:
        for machine in self.machines.values():
            machine.dirty = False
        self._memory.save({
            "epoch": self.epoch,
            "clock_mark_s": self.clock.mark_s,
            "feeders": {name: asdict(machine.mem) for name, machine in self.machines.items()},
        })  # fmt: skip


def _new_epoch() -> int:
    return int.from_bytes(os.urandom(4), "little") or 1


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
