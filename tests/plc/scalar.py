"""The scalar profile: plain tags, as most PLCs and gateways expose them.

Nothing here is checked as a whole and no sequence is compared: each tag is taken alone at the next scan,
and a rising DoseStart doses whatever amount stands there. That is the weaker promise the product has to
live with, so it is kept weak on purpose.
"""

import math
from dataclasses import replace
from typing import Any

from asyncua import ua

from block import MAX_CAP_MG, MAX_INTERVAL_S
from farm import Config
from machine import COMMAND, Dose, Machine
from tags import Tag, TagTable
from words import U32, Mode, Reason, State

OFF, READY, DOSING, HELD, FAULT = range(5)
DOSE_GROUP: dict[str, Any] = {"DoseAmount": 0.0, "DoseSeq": 0}


class ScalarFace:
    """The tags of one scalar feeder. Retained: `echo`, `done` (sequences) and `dispensed_mg`."""

    def __init__(self, machine: Machine, tags: dict[str, Tag]) -> None:
        self._machine = machine
        self._tags = tags
        self._dose: dict[str, Any] = {}
        machine.face = self

    @classmethod
    async def create(cls, machine: Machine, table: TagTable) -> "ScalarFace":
        """Makes the tags; the dose group starts empty."""
        kind, config = ua.VariantType, machine.mem.config
        tags = await table.add(machine.spec.name, {
            "Portion": (kind.Double, config.portion_mg / 1e3, True),
            "Interval": (kind.UInt32, config.interval_s, True),
            "DailyCap": (kind.Double, config.cap_mg / 1e3, True),
            "Mode": (kind.Int32, int(config.mode), True),
            "Hold": (kind.Boolean, machine.mem.hold, True),
            "Status": (kind.Int32, OFF, False),
            "TotalGrams": (kind.Double, 0.0, False),
            "Hopper": (kind.Double, 0.0, False),
            "Oxygen": (kind.Double, machine.oxygen_mg_per_l, False),
            "Temperature": (kind.Double, machine.temperature_c, False),
            "Alive": (kind.UInt32, 0, False),
            "DoseAmount": (kind.Double, 0.0, True),
            "DoseSeq": (kind.UInt32, 0, True),
            "DoseStart": (kind.Boolean, False, True),
            "DoseEcho": (kind.UInt32, 0, False),
            "DoseDone": (kind.UInt32, 0, False),
            "DoseDispensed": (kind.Double, 0.0, False),
        })  # fmt: skip
        return cls(machine, tags)

    # Inputs

    def scan(self, epoch: int, plc_time_s: int) -> None:
        """Reads what a client wrote and acts on it. This profile knows neither epoch nor clock."""
        tags = self._tags
        hold = tags["Hold"].sample_written()
        if isinstance(hold, bool):
            self._machine.set_hold(hold)
        self._take_config({name: tags[name].sample_written() for name in ("Portion", "Interval", "DailyCap", "Mode")})
        for name, empty in DOSE_GROUP.items():
            value = tags[name].sample()
            self._dose[name] = value if isinstance(value, type(empty)) else empty
        amount_mg = milligrams(self._dose["DoseAmount"])
        if tags["DoseStart"].sample() is True and amount_mg is not None:
            self._start(amount_mg, self._dose["DoseSeq"])

    def _take_config(self, written: dict[str, Any]) -> None:
        config = self._machine.mem.config
        changes: dict[str, Any] = {}
        portion, cap = milligrams(written["Portion"]), milligrams(written["DailyCap"])
        interval, mode = written["Interval"], written["Mode"]
        if portion is not None and 1 <= portion <= self._machine.spec.max_dose_mg:
            changes["portion_mg"] = portion
        if cap is not None and cap <= MAX_CAP_MG:
            changes["cap_mg"] = cap
        if isinstance(interval, int) and 1 <= interval <= MAX_INTERVAL_S:
            changes["interval_s"] = interval
        if isinstance(mode, int) and mode in list(Mode):
            changes["mode"] = mode
        wanted = replace(config, **changes)
        if wanted != config:
            self._machine.take_config(replace(wanted, rev=(config.rev + 1) & U32))

    def _start(self, amount_mg: int, seq: int) -> None:
        machine = self._machine
        if machine.mem.dose is None and not machine.command_refusal(amount_mg):
            machine.mem.face["echo"] = seq
            machine.begin(COMMAND, amount_mg, seq=seq)

    def dose_moved(self, dose: Dose) -> None:
        """Plain tags show nothing of a running dose but the totaliser."""

    def dose_ended(self, dose: Dose, state: State, reason: Reason) -> None:
        """Complete or not, it is done."""
        self._machine.mem.face.update(done=dose.seq, dispensed_mg=dose.dispensed_mg)

    # Outputs

    async def publish(self, epoch: int, plc_time_s: int, heartbeat: int, restamp: bool) -> None:
        """Shows the scan's result; what was out of range falls back to what is in force."""
        machine, mem, face = self._machine, self._machine.mem, self._machine.mem.face
        await self._show_config(mem.config, restamp)
        shown = {
            "Hold": mem.hold,
            "Status": self._status(),
            "TotalGrams": mem.total_mg / 1e3,
            "Hopper": mem.hopper_mg / 1e6,
            "Oxygen": machine.oxygen_mg_per_l,
            "Temperature": machine.temperature_c,
            "Alive": heartbeat,
            **self._dose,
            "DoseStart": False,
            "DoseEcho": face.get("echo", 0),
            "DoseDone": face.get("done", 0),
            "DoseDispensed": face.get("dispensed_mg", 0) / 1e3,
        }
        for name, value in shown.items():
            await self._tags[name].show(value, restamp=restamp)

    async def _show_config(self, config: Config, restamp: bool) -> None:
        await self._tags["Portion"].show(config.portion_mg / 1e3, restamp=restamp)
        await self._tags["Interval"].show(config.interval_s, restamp=restamp)
        await self._tags["DailyCap"].show(config.cap_mg / 1e3, restamp=restamp)
        await self._tags["Mode"].show(int(config.mode), restamp=restamp)

    async def clear(self) -> None:
        """Empties the RW tags after a loss of memory; the config tags follow at the next scan."""
        for name, value in {"Hold": False, "DoseStart": False, **DOSE_GROUP}.items():
            await self._tags[name].force(value)

    def _status(self) -> int:
        mem = self._machine.mem
        if mem.fault:
            return FAULT
        if mem.dose:
            return DOSING
        if mem.hold or mem.local:
            return HELD
        return OFF if mem.config.mode == Mode.OFF else READY


def milligrams(grams: Any) -> int | None:
    """Whole milligrams of a tag's grams; None if that is no amount."""
    if not isinstance(grams, float) or not math.isfinite(grams) or not 0 <= grams * 1e3 < U32:
        return None
    return round(grams * 1e3)
