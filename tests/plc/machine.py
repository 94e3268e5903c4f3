"""One feeder as a machine: motor, hopper, sensors, its own schedule, and what it must not forget.

It knows nothing of OPC UA. A *face* (block.py, scalar.py) translates tags into calls here and keeps its
own retained part in `Retained.face`. Everything runs in the PLC's scan, in one thread, without awaits:
that is what makes a step of it atomic.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from durable import Ledger, Record
from farm import Config, FeederSpec, config_from_memory
from words import NONE, Mode, Reason, State

COMMAND, SCHEDULE, FARM = "COMMAND", "SCHEDULE", "FARM"
JAM_FAULT = 2
HOPPER_LOW_PERCENT = 10


@dataclass
class Dose:
    """The one execution that a machine may have in hand: latched, then turning."""

    run: int
    cause: str
    token: int
    seq: int
    planned_mg: int
    rate_mg_per_s: int
    dispensed_mg: int = 0
    start_ms: int = 0
    turning: bool = False


@dataclass
class Retained:
    """What survives a power loss. The hopper and the local switch survive a loss of memory too."""

    config: Config
    hopper_mg: int
    anchor_unix: float
    hold: bool = False
    local: bool = False
    fault: int = 0
    last_fault: int = 0
    total_mg: int = 0
    day: int = 0
    day_mg: int = 0
    last_command_end_s: int | None = None
    dose: Dose | None = None
    ended: Record | None = None
    face: dict[str, Any] = field(default_factory=dict)


class Face(Protocol):
    """What a profile does when a commanded dose moves on; both are called before memory is saved."""

    def dose_moved(self, dose: Dose) -> None:
        """Its measured amount grew."""

    def dose_ended(self, dose: Dose, state: State, reason: Reason) -> None:
        """It is over."""


class Machine:
    """A feeder. `save` writes the whole PLC's memory; `clock_s` is the PLC's own clock."""

    def __init__(
        self,
        spec: FeederSpec,
        memory: Record | None,
        ledger: Ledger,
        save: Callable[[], None],
        clock_s: Callable[[], int],
        epoch: Callable[[], int],
    ) -> None:
        self.spec = spec
        self.mem = _restored(memory) if memory else Retained(spec.config, spec.hopper_mg, time.time())
        self.face: Face | None = None
        self.dirty = False
        self.oxygen_mg_per_l = spec.oxygen_mg_per_l
        self.temperature_c = spec.temperature_c
        self.external_interlock = False
        self.rate_mg_per_s = spec.rate_mg_per_s
        self.motor_delay_ms = spec.motor_delay_ms
        self.skipped: tuple[int, Reason] = (0, Reason.NONE)
        self.lie_scans: int | None = None
        self._revert: tuple[Config, int] | None = None
        self._ledger, self._save, self._clock_s, self._epoch = ledger, save, clock_s, epoch
        self._motor_at = self._turning_since = 0.0
        now = time.monotonic()
        self._anchor = now - (time.time() - self.mem.anchor_unix)
        if now - self._anchor >= self.mem.config.interval_s or self._anchor > now:
            self._restart_interval(now)

    # Power and memory

    def power_on(self) -> None:
        """Closes what the power loss left open. A dose is never resumed."""
        dose, ended = self.mem.dose, self.mem.ended
        if dose:
            started = self._ledger.open_runs.get(dose.run)
            dose.turning = started is not None
            dose.start_ms = started["start"] if started else 0
            self._end(State.ABORTED, Reason.POWER_LOSS)
        elif ended and ended["run"] in self._ledger.open_runs:
            self._ledger.append(ended)

    def power_off(self) -> None:
        """The motor loses its power; what was measured is kept."""
        if self.mem.dose:
            self._end(State.ABORTED, Reason.POWER_LOSS)

    def lose_memory(self) -> None:
        """All that is retained is gone, but for what is not memory: feed and the local switch."""
        self.mem = Retained(self.spec.config, self.mem.hopper_mg, time.time(), local=self.mem.local)
        self._revert = self.lie_scans = None
        self._restart_interval(time.monotonic())

    # What faces and the control channel ask

    @property
    def interlocked(self) -> bool:
        """Water outside the config's limits, a reading that cannot be judged, or the external input."""
        config = self.mem.config
        low, high = config.min_do_ug_per_l, config.max_temp_millicelsius
        bad_water = low != NONE and not self.oxygen_mg_per_l * 1000 >= low
        bad_heat = high != NONE and not self.temperature_c * 1000 <= high
        return self.external_interlock or bad_water or bad_heat

    @property
    def hopper_low(self) -> bool:
        """Below a tenth of what the farm file calls full."""
        return self.mem.hopper_mg * 100 < self.spec.hopper_mg * HOPPER_LOW_PERCENT

    def refusal(self, amount_mg: int) -> Reason:
        """Why a dose of this amount cannot start now, or NONE."""
        mem = self.mem
        if not 1 <= amount_mg <= self.spec.max_dose_mg:
            return Reason.OUT_OF_RANGE
        if mem.local:
            return Reason.LOCAL
        if mem.fault:
            return Reason.FAULT
        if mem.hold:
            return Reason.HELD
        if mem.config.mode == Mode.OFF:
            return Reason.MODE_OFF
        if self.interlocked:
            return Reason.INTERLOCK
        if mem.hopper_mg == 0:
            return Reason.HOPPER_EMPTY
        if mem.config.cap_mg != NONE and self._today_mg() + amount_mg > mem.config.cap_mg:
            return Reason.CAP
        return Reason.NONE

    def command_refusal(self, amount_mg: int) -> Reason:
        """As refusal, with the rest that a commanded dose must keep to the one before."""
        last, rest = self.mem.last_command_end_s, self.spec.min_interval_s
        too_soon = last is not None and self._clock_s() - last < rest
        return self.refusal(amount_mg) or (Reason.MIN_INTERVAL if too_soon else Reason.NONE)

    def begin(self, cause: str, amount_mg: int, rate_mg_per_s: int = 0, token: int = 0, seq: int = 0) -> None:
        """Latches a dose in retained memory; the motor starts in a later step, never before the save."""
        rate = rate_mg_per_s or self.rate_mg_per_s
        self.mem.dose = Dose(self._ledger.next_run(), cause, token, seq, amount_mg, rate)
        self._motor_at = time.monotonic() + self.motor_delay_ms / 1000
        self._save()

    def feed_by_hand(self, amount_mg: int) -> None:
        """Someone at the machine presses its button; neither hold nor local mode is in his way."""
        if self.mem.dose or self.mem.fault or not self.mem.hopper_mg or amount_mg < 1:
            raise ValueError("busy, in fault, empty, or nothing to feed")
        self.begin(FARM, amount_mg)

    def take_config(self, config: Config, *, by_client: bool = True) -> None:
        """Puts a config in force. A PLC told to lie takes a client's, and takes it back some scans later."""
        old, self.mem.config = self.mem.config, config
        if by_client and self.lie_scans is not None:
            self._revert, self.lie_scans = (old, self.lie_scans), None
        if config.mode == Mode.AUTOMATIC != old.mode:
            self._restart_interval(time.monotonic())
        self._save()

    def set_hold(self, on: bool) -> None:
        """The hold level as the tag has it."""
        if on != self.mem.hold:
            self.mem.hold = on
            self.dirty = True

    def set_fault(self, code: int) -> None:
        """A fault comes (a code), or is cleared (0); the last code stays known."""
        self.mem.fault = code
        self.mem.last_fault = code or self.mem.last_fault
        self.dirty = True

    def next_meal_in_s(self) -> float | None:
        """Until the interval is over (windows aside), or None if there is no schedule."""
        if self.mem.config.mode != Mode.AUTOMATIC:
            return None
        return max(0.0, self._anchor + self.mem.config.interval_s - time.monotonic())

    # The scan

    def step(self, now: float) -> None:
        """One scan of the machine; the face has read its tags before."""
        self._step_revert()
        if self.mem.dose is None:
            self._step_schedule(now)
        dose = self.mem.dose
        if dose is None:
            return
        if dose.turning:
            self._turn(now, dose)
        if self.mem.dose is None:
            return
        if stop := self._stop_reason(dose):
            self._end(State.ABORTED, stop)
        elif not dose.turning and now >= self._motor_at:
            self._start_motor(now, dose)

    def _step_revert(self) -> None:
        if self._revert is None:
            return
        config, scans = self._revert
        if scans > 0:
            self._revert = (config, scans - 1)
        else:
            self._revert = None
            self.take_config(config, by_client=False)

    def _step_schedule(self, now: float) -> None:
        config = self.mem.config
        runs = config.mode == Mode.AUTOMATIC and config.interval_s > 0 and config.portion_mg > 0
        if not runs or now - self._anchor < config.interval_s or not in_windows(config.windows, time.time()):
            return
        self._restart_interval(now)
        if reason := self.refusal(config.portion_mg):
            self.skipped = (self.skipped[0] + 1, reason)
        else:
            self.begin(SCHEDULE, config.portion_mg)

    def _restart_interval(self, now: float) -> None:
        self._anchor = now
        self.mem.anchor_unix = time.time()
        self.dirty = True

    def _stop_reason(self, dose: Dose) -> Reason:
        mem = self.mem
        if mem.fault:
            return Reason.JAM if mem.fault == JAM_FAULT else Reason.FAULT
        if dose.cause == FARM:
            return Reason.NONE
        if mem.hold:
            return Reason.HELD
        return Reason.LOCAL if mem.local else Reason.NONE

    def _start_motor(self, now: float, dose: Dose) -> None:
        dose.turning = True
        dose.start_ms = _wall_ms()
        self._turning_since = now
        self.dirty = True
        self._ledger.append(self._record("start", dose, State.STARTED, Reason.NONE, None))

    def _turn(self, now: float, dose: Dose) -> None:
        mem = self.mem
        due = min(dose.planned_mg, math.floor(dose.rate_mg_per_s * (now - self._turning_since)))
        moved = min(due - dose.dispensed_mg, mem.hopper_mg)
        starved = moved < due - dose.dispensed_mg
        self._today_mg()
        dose.dispensed_mg += moved
        mem.hopper_mg -= moved
        mem.total_mg += moved
        mem.day_mg += moved
        self.dirty = True
        if dose.cause == COMMAND and self.face:
            self.face.dose_moved(dose)
        if dose.dispensed_mg >= dose.planned_mg:
            self._end(State.DONE, Reason.NONE)
        elif starved:
            self._end(State.ABORTED, Reason.HOPPER_EMPTY)

    def _end(self, state: State, reason: Reason) -> None:
        dose = self.mem.dose
        if dose is None:
            return
        record = self._record("end", dose, state, reason, _wall_ms()) if dose.turning else None
        self.mem.dose, self.mem.ended = None, record
        if dose.cause == COMMAND:
            self.mem.last_command_end_s = self._clock_s()
            if self.face:
                self.face.dose_ended(dose, state, reason)
        self._save()
        if record:
            self._ledger.append(record)

    def _record(self, kind: str, dose: Dose, state: State, reason: Reason, end_ms: int | None) -> Record:
        name = self.spec.name
        return {
            "kind": kind, "run": dose.run, "robot": name, "feeder": name, "cause": dose.cause,
            "token": dose.token, "seq": dose.seq, "epoch": self._epoch(), "planned_mg": dose.planned_mg,
            "dispensed_mg": dose.dispensed_mg, "start": dose.start_ms, "end": end_ms,
            "state": state.name, "reason": reason.name,
        }  # fmt: skip

    def _today_mg(self) -> int:
        today = int(time.time() // 86_400)
        if self.mem.day != today:
            self.mem.day, self.mem.day_mg = today, 0
        return self.mem.day_mg

    def snapshot(self) -> dict[str, Any]:
        """Everything about it, for the control channel."""
        count, reason = self.skipped
        return {
            **asdict(self.mem),
            "profile": self.spec.profile,
            "next_meal_in_s": self.next_meal_in_s(),
            "skipped_meals": count,
            "last_skip": reason.name,
            "interlocked": self.interlocked,
            "oxygen_mg_per_l": self.oxygen_mg_per_l,
            "temperature_c": self.temperature_c,
        }


def in_windows(windows: tuple[tuple[int, int], ...], unix: float) -> bool:
    """Whether a feeder with these windows ([start, end) minutes of the UTC day) may feed by itself."""
    minute = int(unix // 60) % 1440
    return not windows or any(
        start <= minute < end if start < end else minute >= start or minute < end for start, end in windows
    )


def _restored(memory: Record) -> Retained:
    dose = memory["dose"]
    config = config_from_memory(memory["config"])
    return Retained(**{**memory, "config": config, "dose": Dose(**dose) if dose else None})


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
