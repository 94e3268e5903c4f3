"""The word tables of the block profile, and their checksum.

One place for the layout, shared by the PLC, the client and the tests, so that a word cannot mean two
things. README.md is its description for everybody else.
"""

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

U32 = 0xFFFFFFFF
NONE = U32  # "no limit" in cap_mg, min_do_ug_per_l and max_temp_millicelsius

CMD_LEN, STS_LEN, HIST_LEN, CFG_LEN = 8, 16, 32, 24
HIST_ENTRIES = HIST_LEN // 4
MAX_WINDOWS = 6
CFG_WINDOWS_AT = 10
CFG_RESERVED_AT = CFG_WINDOWS_AT + 2 * MAX_WINDOWS


class Op(IntEnum):
    """What a command slot asks for."""

    DOSE = 1
    NOP = 2


class State(IntEnum):
    """What became of a slot. NOP appears in Hist only, where an entry has no Op."""

    NONE = 0
    STARTED = 1
    DONE = 2
    ABORTED = 3
    REJECTED = 4
    EXPIRED = 5
    NOP = 6


class Reason(IntEnum):
    """Why a slot was refused or a dose ended short."""

    NONE = 0
    HELD = 1
    INTERLOCK = 2
    FAULT = 3
    JAM = 4
    LOCAL = 5
    HOPPER_EMPTY = 6
    CAP = 7
    OUT_OF_RANGE = 8
    BAD_OP = 9
    MODE_OFF = 10
    MIN_INTERVAL = 11
    EXPIRED = 12
    POWER_LOSS = 13


class Mode(IntEnum):
    """Who decides when a feeder turns."""

    OFF = 0
    AUTOMATIC = 1
    MANUAL = 2


FLAGS = ("remote_enabled", "interlock", "jam", "hopper_low", "local", "running", "fault", "held")

STS_WORDS = (
    "epoch", "last_seq", "last_op", "last_token", "last_state", "last_reason", "last_dispensed_mg",
    "total_dispensed_mg", "plc_time_s", "heartbeat", "flags", "hopper_mg", "max_dose_mg",
    "min_interval_s", "fault_code",
)  # fmt: skip
CFG_WORDS = (
    "epoch", "base_rev", "rev", "mode", "portion_mg", "interval_s", "cap_mg", "min_do_ug_per_l",
    "max_temp_millicelsius", "n_windows",
)  # fmt: skip
LIMITS = ("cap_mg", "min_do_ug_per_l", "max_temp_millicelsius")


def checksum(words: Sequence[int]) -> int:
    """CRC-32 (IEEE) of the words, each as four bytes little-endian."""
    return zlib.crc32(struct.pack(f"<{len(words)}I", *words))


def sealed(words: Sequence[int]) -> list[int]:
    """The words with their checksum behind them."""
    return [*words, checksum(words)]


def is_sealed(words: object, length: int) -> bool:
    """Whether this is a block of that length whose last word is the checksum of the others."""
    if not isinstance(words, list) or len(words) != length or not all(isinstance(word, int) for word in words):
        return False
    return words[-1] == checksum(words[:-1])


def flag_word(on: dict[str, bool]) -> int:
    """The Flags word with these named bits set."""
    return sum(on[name] << bit for bit, name in enumerate(FLAGS))


def decode_sts(words: list[int]) -> dict[str, Any]:
    """A status block in names, for people and tests."""
    out: dict[str, Any] = dict(zip(STS_WORDS, words, strict=False))
    out["last_state"] = _name(State, out["last_state"])
    out["last_reason"] = _name(Reason, out["last_reason"])
    out["flags"] = [name for bit, name in enumerate(FLAGS) if words[STS_WORDS.index("flags")] >> bit & 1]
    out["chk_ok"] = is_sealed(words, STS_LEN)
    return out


def decode_hist(words: list[int]) -> list[dict[str, Any]]:
    """The used entries of a history block, newest first."""
    rows = [words[i : i + 4] for i in range(0, HIST_LEN, 4)]
    return [
        {"seq": seq, "token": token, "state": _name(State, state), "dispensed_mg": dispensed}
        for seq, token, state, dispensed in rows
        if state != State.NONE
    ]


def decode_cfg(words: list[int]) -> dict[str, Any]:
    """A config block in names; a limit that is not set is None."""
    out: dict[str, Any] = dict(zip(CFG_WORDS, words, strict=False))
    out["mode"] = _name(Mode, out["mode"])
    for limit in LIMITS:
        out[limit] = None if out[limit] == NONE else out[limit]
    pairs = words[CFG_WINDOWS_AT:CFG_RESERVED_AT]
    count = min(out.pop("n_windows"), MAX_WINDOWS)
    out["windows"] = [pairs[2 * i : 2 * i + 2] for i in range(count)]
    out["chk_ok"] = is_sealed(words, CFG_LEN)
    return out


def _name(kind: type[IntEnum], value: int) -> str | int:
    try:
        return kind(value).name
    except ValueError:
        return value
