"""What the farm consists of: the feeders, their first config and their physics.

Values of a config are deliberately not range-checked here: an edit at the farm's own screen may be
nonsense, and the product must show it as such.
"""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from words import LIMITS, MAX_WINDOWS, NONE, U32, Mode

PROFILES = ("block", "scalar")


class FarmError(ValueError):
    """The farm file, or an edit, that makes no sense."""


@dataclass(frozen=True)
class Config:
    """What a feeder runs by itself. Limits that are not set hold NONE."""

    mode: int = Mode.AUTOMATIC
    portion_mg: int = 1_500
    interval_s: int = 600
    cap_mg: int = 500_000
    min_do_ug_per_l: int = NONE
    max_temp_millicelsius: int = NONE
    windows: tuple[tuple[int, int], ...] = ()
    rev: int = 1

    @property
    def base_rev(self) -> int:
        """The revision this one replaced."""
        return (self.rev - 1) & U32

    def edited(self, changes: dict[str, Any]) -> "Config":
        """This config with changes as JSON has them, under the next revision."""
        return replace(self, **{k: _config_value(k, v) for k, v in changes.items()}, rev=(self.rev + 1) & U32)


CONFIG_KEYS = tuple(f.name for f in fields(Config) if f.name != "rev")


def config_from_memory(content: dict[str, Any]) -> Config:
    """The inverse of dataclasses.asdict plus JSON, which turns tuples into lists."""
    return Config(**{**content, "windows": tuple((a, b) for a, b in content["windows"])})


@dataclass(frozen=True)
class FeederSpec:
    """One feeder of the farm file."""

    name: str
    profile: str
    config: Config = field(default_factory=Config)
    rate_mg_per_s: int = 500
    hopper_mg: int = 5_000_000
    max_dose_mg: int = 100_000
    min_interval_s: int = 0
    motor_delay_ms: int = 0
    oxygen_mg_per_l: float = 8.2
    temperature_c: float = 18.5


SPEC_KEYS = tuple(f.name for f in fields(FeederSpec) if f.name not in ("name", "profile", "config"))


def load_farm(path: Path | None, profile: str) -> list[FeederSpec]:
    """The feeders to serve: of the farm file, or the default farm, that have the profile (or `both`)."""
    farm = json.loads(path.read_text()) if path else _default_farm()
    if not isinstance(farm, dict) or not set(farm) <= {"defaults", "feeders"}:
        raise FarmError("a farm file is an object with `feeders` and perhaps `defaults`")
    defaults = farm.get("defaults", {})
    specs = [_feeder({**defaults, **feeder}) for feeder in farm["feeders"]]
    if len({spec.name for spec in specs}) != len(specs):
        raise FarmError("two feeders have the same name")
    return [spec for spec in specs if profile in ("both", spec.profile)]


def _default_farm() -> dict[str, Any]:
    blocks = [{"name": f"R{i:02}", "profile": "block"} for i in (1, 2, 3)]
    scalars = [{"name": f"F{i:02}", "profile": "scalar"} for i in (1, 2, 3)]
    return {"feeders": blocks + scalars}


def _feeder(entry: dict[str, Any]) -> FeederSpec:
    unknown = set(entry) - {"name", "profile"} - set(CONFIG_KEYS) - set(SPEC_KEYS)
    if unknown:
        raise FarmError(f"unknown key {sorted(unknown)[0]!r}")
    if entry.get("profile") not in PROFILES or not str(entry.get("name", "")).isalnum():
        raise FarmError(f"a feeder needs an alphanumeric name and a profile of {PROFILES}")
    config = Config(**{k: _config_value(k, entry[k]) for k in CONFIG_KEYS if k in entry})
    return FeederSpec(entry["name"], entry["profile"], config, **{k: entry[k] for k in SPEC_KEYS if k in entry})


def _config_value(key: str, value: Any) -> Any:
    if key not in CONFIG_KEYS:
        raise FarmError(f"unknown key {key!r}")
    if key == "windows":
        windows = tuple((_u32(key, start), _u32(key, end)) for start, end in value)
        if len(windows) > MAX_WINDOWS:
            raise FarmError(f"at most {MAX_WINDOWS} windows")
        return windows
    if key == "mode" and isinstance(value, str):
        try:
            return int(Mode[value.upper()])
        except KeyError:
            raise FarmError(f"unknown mode {value!r}") from None
    if key in LIMITS and value is None:
        return NONE
    return _u32(key, value)


def _u32(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= U32:
        raise FarmError(f"{key} must be a whole number from 0 to {U32}")
    return value
