"""The block profile: a command slot, a checked config block, and their status.

The handshake is the one that survived the model checker: a slot is taken once, under its epoch, with the
next sequence number, and that fact is retained before the motor turns. See README.md for the words.
"""

from typing import Any

from asyncua import ua

from farm import Config
from machine import COMMAND, JAM_FAULT, Dose, Machine
from tags import Tag, TagTable
from words import (
    CFG_LEN,
    CFG_RESERVED_AT,
    CFG_WINDOWS_AT,
    CMD_LEN,
    HIST_ENTRIES,
    HIST_LEN,
    MAX_WINDOWS,
    NONE,
    STS_LEN,
    U32,
    Mode,
    Op,
    Reason,
    State,
    flag_word,
    is_sealed,
    sealed,
)  # fmt: skip

MINUTES = 1440
MAX_INTERVAL_S = 86_400
MAX_CAP_MG = 500_000_000
NO_SLOT = {"seq": 0, "op": 0, "token": 0, "state": 0, "reason": 0, "dispensed_mg": 0}


class BlockFace:
    """The tags of one block robot. Retained: `slots`, the last eight consumed, newest first."""

    def __init__(self, machine: Machine, tags: dict[str, Tag]) -> None:
        self._machine = machine
        self._tags = tags
        self._blocks: dict[str, Any] = {}
        self._cfg_taken: list[int] = []
        machine.face = self

    @classmethod
    async def create(cls, machine: Machine, table: TagTable) -> "BlockFace":
        """Makes the tags; RW ones start as retained memory has them, or empty."""
        kind = ua.VariantType
        tags = await table.add(machine.spec.name, {
            "Cmd": (kind.UInt32, [0] * CMD_LEN, True),
            "Sts": (kind.UInt32, [0] * STS_LEN, False),
            "Hist": (kind.UInt32, [0] * HIST_LEN, False),
            "Cfg": (kind.UInt32, [0] * CFG_LEN, True),
            "CfgSts": (kind.UInt32, [0] * CFG_LEN, False),
            "Hold": (kind.Boolean, machine.mem.hold, True),
            "ResetFault": (kind.UInt32, 0, True),
            "Alive": (kind.UInt32, 0, False),
            "Oxygen": (kind.Double, machine.oxygen_mg_per_l, False),
            "Temperature": (kind.Double, machine.temperature_c, False),
        })  # fmt: skip
        return cls(machine, tags)

    @property
    def _slots(self) -> list[dict[str, int]]:
        return self._machine.mem.face.setdefault("slots", [])

    @property
    def _slot(self) -> dict[str, int]:
        return self._slots[0] if self._slots else NO_SLOT

    # Inputs

    def scan(self, epoch: int, plc_time_s: int) -> None:
        """Reads what a client wrote and acts on it."""
        tags = self._tags
        hold = tags["Hold"].sample_written()
        if isinstance(hold, bool):
            self._machine.set_hold(hold)
        self._take_reset(tags["ResetFault"].sample())
        self._blocks = {name: tags[name].sample() for name in ("Cfg", "Cmd")}
        self._take_cfg(self._blocks["Cfg"], epoch)
        self._take_cmd(self._blocks["Cmd"], epoch, plc_time_s)

    def _take_reset(self, code: Any) -> None:
        mem = self._machine.mem
        if isinstance(code, int) and code and code == mem.fault and not mem.local:
            self._machine.set_fault(0)

    def _take_cfg(self, words: Any, epoch: int) -> None:
        if not is_sealed(words, CFG_LEN):
            return
        current = self._machine.mem.config
        if words[:3] != [epoch, current.rev, (current.rev + 1) & U32]:
            return
        # A PLC that puts a config back does not take it again from the block that still stands there.
        config = decode_config(words) if words != self._cfg_taken else None
        if config and is_reasonable(config, self._machine.spec.max_dose_mg):
            self._cfg_taken = words
            self._machine.take_config(config)

    def _take_cmd(self, words: Any, epoch: int, plc_time_s: int) -> None:
        machine, running = self._machine, self._machine.mem.dose
        if not is_sealed(words, CMD_LEN) or words[:2] != [epoch, (self._slot["seq"] + 1) & U32]:
            return
        if running and running.cause == COMMAND:
            return
        _, seq, op, amount_mg, token, rate, expires_at_s, _ = words
        expired = op == Op.DOSE and plc_time_s > expires_at_s
        if running and op != Op.NOP and not expired:
            return
        if op == Op.NOP:
            state, reason = State.DONE, Reason.NONE
        elif op != Op.DOSE:
            state, reason = State.REJECTED, Reason.BAD_OP
        elif expired:
            state, reason = State.EXPIRED, Reason.EXPIRED
        else:
            reason = machine.command_refusal(amount_mg)
            state = State.REJECTED if reason else State.STARTED
        slot = {"seq": seq, "op": op, "token": token, "state": state, "reason": reason, "dispensed_mg": 0}
        machine.mem.face["slots"] = [slot, *self._slots[: HIST_ENTRIES - 1]]
        if state == State.STARTED:
            machine.begin(COMMAND, amount_mg, rate, token, seq)
        else:
            machine.dirty = True

    def dose_moved(self, dose: Dose) -> None:
        """The measured amount of the running slot grew."""
        self._slot["dispensed_mg"] = dose.dispensed_mg

    def dose_ended(self, dose: Dose, state: State, reason: Reason) -> None:
        """The running slot is over."""
        self._slot.update(state=state, reason=reason, dispensed_mg=dose.dispensed_mg)

    # Outputs

    async def publish(self, epoch: int, plc_time_s: int, heartbeat: int, restamp: bool) -> None:
        """Shows the scan's result. What a client wrote stays, stamped; ResetFault falls back to 0."""
        machine, tags = self._machine, self._tags
        await tags["Sts"].show(self._sts(epoch, plc_time_s, heartbeat))
        await tags["Hist"].show(self._hist(), restamp=restamp)
        await tags["CfgSts"].show(encode_config(machine.mem.config, epoch), restamp=restamp)
        await tags["Alive"].show(heartbeat)
        await tags["Oxygen"].show(machine.oxygen_mg_per_l, restamp=restamp)
        await tags["Temperature"].show(machine.temperature_c, restamp=restamp)
        await tags["Hold"].show(machine.mem.hold)
        await tags["ResetFault"].show(0)
        for name, words in self._blocks.items():
            if isinstance(words, list):
                await tags[name].show(words)

    async def clear(self) -> None:
        """Empties the RW tags after a loss of memory."""
        await self._tags["Cmd"].force([0] * CMD_LEN)
        await self._tags["Cfg"].force([0] * CFG_LEN)
        await self._tags["Hold"].force(False)
        await self._tags["ResetFault"].force(0)

    def _sts(self, epoch: int, plc_time_s: int, heartbeat: int) -> list[int]:
        machine, mem, slot, spec = self._machine, self._machine.mem, self._slot, self._machine.spec
        flags = flag_word({
            "remote_enabled": not mem.local,
            "interlock": machine.interlocked,
            "jam": mem.fault == JAM_FAULT,
            "hopper_low": machine.hopper_low,
            "local": mem.local,
            "running": mem.dose is not None,
            "fault": mem.fault != 0,
            "held": mem.hold,
        })  # fmt: skip
        return sealed([
            epoch, slot["seq"], slot["op"], slot["token"], slot["state"], slot["reason"], slot["dispensed_mg"],
            mem.total_mg & U32, plc_time_s, heartbeat, flags, mem.hopper_mg, spec.max_dose_mg,
            spec.min_interval_s, mem.last_fault,
        ])  # fmt: skip

    def _hist(self) -> list[int]:
        words: list[int] = []
        for slot in self._slots:
            state = State.NOP if slot["op"] == Op.NOP else slot["state"]
            words += [slot["seq"], slot["token"], state, slot["dispensed_mg"]]
        return words + [0] * (HIST_LEN - len(words))


def encode_config(config: Config, epoch: int) -> list[int]:
    """A config as CfgSts shows it."""
    pairs = [minute for window in config.windows for minute in window]
    pairs += [0] * (2 * MAX_WINDOWS - len(pairs))
    return sealed([
        epoch, config.base_rev, config.rev, config.mode, config.portion_mg, config.interval_s, config.cap_mg,
        config.min_do_ug_per_l, config.max_temp_millicelsius, len(config.windows), *pairs, 0,
    ])  # fmt: skip


def decode_config(words: list[int]) -> Config | None:
    """The config of a block, or None if its windows or reserved word are not as they must be."""
    _, _, rev, mode, portion, interval, cap, min_do, max_temp, count = words[:CFG_WINDOWS_AT]
    pairs = words[CFG_WINDOWS_AT:CFG_RESERVED_AT]
    if count > MAX_WINDOWS or any(pairs[2 * count :]) or words[CFG_RESERVED_AT]:
        return None
    windows = tuple((pairs[2 * i], pairs[2 * i + 1]) for i in range(count))
    return Config(mode, portion, interval, cap, min_do, max_temp, windows, rev)


def is_reasonable(config: Config, max_portion_mg: int) -> bool:
    """Whether a config that comes by wire is in the ranges of this PLC."""
    return (
        config.mode in set(Mode)
        and 1 <= config.portion_mg <= max_portion_mg
        and 1 <= config.interval_s <= MAX_INTERVAL_S
        and (config.cap_mg <= MAX_CAP_MG or config.cap_mg == NONE)
        and all(start != end and max(start, end) < MINUTES for start, end in config.windows)
    )
