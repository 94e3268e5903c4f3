"""What survives a kill: the retained memory and the ledger.

Both follow the rule that real feeding PLCs break most often: a fact is on the disk before the next
step relies on it. Memory is replaced as a whole (a reader sees the old or the new, never half); the
ledger only grows.
"""

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Memory:
    """The PLC's retained memory, one JSON file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "retain.json"
        self._draft = directory / "retain.json.new"
        self._directory = directory

    def load(self) -> Record | None:
        """The memory, or None if there is none (a first start, or it was lost)."""
        try:
            return json.loads(self._path.read_text())
        except FileNotFoundError:
            return None

    def save(self, content: Record) -> None:
        """Returns once the content would survive a power cut."""
        with self._draft.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._draft, self._path)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Ledger:
    """Every physical execution, as a start line and an end line with the same `run`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.jsonl"
        self._file = self._path.open("a+")
        self.open_runs: dict[int, Record] = {}
        last = 0
        for line in self.lines():
            last = max(last, line["run"])
            self._account(line)
        self._last_run = last

    def next_run(self) -> int:
        """A number no execution of this ledger has had."""
        self._last_run += 1
        return self._last_run

    def append(self, record: Record) -> None:
        """Returns once the line would survive a power cut."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._account(record)

    def lines(self) -> list[Record]:
        """The whole ledger, oldest first."""
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def _account(self, record: Record) -> None:
        if record["kind"] == "start":
            self.open_runs[record["run"]] = record
        else:
            self.open_runs.pop(record["run"], None)
