"""The PLC's self-check: the promises that the product's tests build on.

Each test has its own feeder of one shared PLC, so that none sees another's doses; those that kill the PLC
have a process of their own. Nothing sleeps for a guessed time: every wait polls, with a deadline.
"""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from asyncua import Client, ua

from durable import Ledger
from farm import FeederSpec
from machine import COMMAND, Machine
from words import CFG_LEN, NONE, Mode, Op, decode_cfg, decode_hist, decode_sts, sealed

HERE = Path(__file__).parent
T = TypeVar("T")
DEADLINE_S = 8.0
U32, DOUBLE, BOOL = ua.VariantType.UInt32, ua.VariantType.Double, ua.VariantType.Boolean
FAST, SLOW = 100_000, 200  # mg/s: over within two scans, and not over before the test has acted


def setUpModule() -> None:
    logging.disable(logging.WARNING)  # asyncua's client is talkative


def tearDownModule() -> None:
    logging.disable(logging.NOTSET)


class PlcProcess:
    """A PLC started for a test."""

    def __init__(self, directory: Path, feeders: list[dict[str, Any]], *options: str) -> None:
        farm = directory / "farm.json"
        farm.write_text(json.dumps({"defaults": {"rate_mg_per_s": FAST}, "feeders": feeders}))
        self._command = [
            sys.executable, str(HERE / "farm_plc.py"), "--dir", str(directory), "--config", str(farm),
            "--scan-ms", "20", *options,
        ]  # fmt: skip
        self._ledger = directory / "ledger.jsonl"
        self._memory = directory / "retain.json"
        self._log = directory / "plc.log"
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise AssertionError(f"the PLC did not come up: {self._log.read_text()}")
        ready = json.loads(line)
        self.endpoint: str = ready["endpoint"]
        self._control: int = ready["control"]

    def kill(self) -> None:
        self._end(self._process.kill)

    def terminate(self) -> int:
        return self._end(self._process.terminate)

    def _end(self, how: Callable[[], None]) -> int:
        how()
        code = self._process.wait(timeout=DEADLINE_S)
        if self._process.stdout:
            self._process.stdout.close()
        return code

    def ledger(self, feeder: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._ledger.read_text().splitlines()]
        return [line for line in lines if line["feeder"] == feeder]

    def ends(self, feeder: str) -> list[dict[str, Any]]:
        return [line for line in self.ledger(feeder) if line["kind"] == "end"]

    def memory(self) -> dict[str, Any]:
        return json.loads(self._memory.read_text())

    def control(self, op: str, **fields: Any) -> dict[str, Any]:
        with (
            socket.create_connection(("127.0.0.1", self._control), timeout=DEADLINE_S) as link,
            link.makefile("rw") as lines,
        ):
            lines.write(json.dumps({"op": op, **fields}) + "\n")
            lines.flush()
            return json.loads(lines.readline())

    def client(self, user: str | None = None, password: str = "") -> Client:
        client = Client(self.endpoint, timeout=2)
        if user:
            client.set_user(user)
            client.set_password(password)
        return client


class Feeder:
    """The tags of one feeder, through a connected client."""

    def __init__(self, client: Client, namespace: int, name: str) -> None:
        self._client, self._namespace, self.name = client, namespace, name

    @classmethod
    async def at(cls, client: Client, name: str) -> "Feeder":
        return cls(client, await client.get_namespace_index("urn:feedlab:plc"), name)

    def _node(self, tag: str) -> Any:
        return self._client.get_node(ua.NodeId(f"{self.name}.{tag}", self._namespace))

    async def read(self, tag: str) -> Any:
        return await self._node(tag).read_value()

    async def write(self, tag: str, value: Any, kind: ua.VariantType = U32) -> None:
        await self._node(tag).write_value(ua.DataValue(ua.Variant(value, kind)))

    async def sts(self) -> dict[str, Any]:
        return decode_sts(await self.read("Sts"))

    async def cfg(self) -> dict[str, Any]:
        return decode_cfg(await self.read("CfgSts"))

    async def command(
        self, op: int = Op.DOSE, amount_mg: int = 500, token: int = 7, rate: int = 0, expires_at_s: int | None = None
    ) -> list[int]:
        """A block for the next slot, not yet written; it expires in 10 s unless told otherwise."""
        sts = await self.sts()
        expires = sts["plc_time_s"] + 10 if expires_at_s is None else expires_at_s
        return sealed([sts["epoch"], sts["last_seq"] + 1, op, amount_mg, token, rate, expires])

    async def until(self, ok: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return await until(self.sts, ok)

    async def scans(self, count: int) -> None:
        """Waits until the PLC has scanned that often."""
        start = await self.read("Alive")
        await until(lambda: self.read("Alive"), lambda alive: alive >= start + count)


async def until(read: Callable[[], Awaitable[T]], ok: Callable[[T], bool]) -> T:
    """Polls until it is ok; fails with what was seen last."""
    deadline = time.monotonic() + DEADLINE_S
    while not ok(value := await read()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not reached in {DEADLINE_S} s; last seen: {value}")
        await asyncio.sleep(0.005)
    return value


def block(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "profile": "block", **keys}


class LatchOrder(unittest.TestCase):
    """The one rule that real PLCs break: retained memory, then the ledger, then the motor."""

    def test_memory_is_written_before_the_motor_turns_and_before_the_end_is_told(self) -> None:
        events: list[str] = []

        class Paper(Ledger):
            def append(self, record: dict[str, Any]) -> None:
                events.append(f"ledger {record['kind']} {record['dispensed_mg']}")

        def save() -> None:
            dose = machine.mem.dose
            events.append(f"memory {'has' if dose else 'no'} dose, total {machine.mem.total_mg}")

        with tempfile.TemporaryDirectory() as directory:
            spec = FeederSpec("R01", "block", rate_mg_per_s=FAST)
            machine = Machine(spec, None, Paper(Path(directory)), save, lambda: 0, lambda: 1)
            machine.begin(COMMAND, 500)
            self.assertEqual(events, ["memory has dose, total 0"])
            started = time.monotonic()
            machine.step(started)
            machine.step(started + 1)
        latch, start = "memory has dose, total 0", "ledger start 0"
        self.assertEqual(events, [latch, start, "memory no dose, total 500", "ledger end 500"])


class SharedPlc(unittest.IsolatedAsyncioTestCase):
    """What a PLC does while it lives."""

    directory: tempfile.TemporaryDirectory[str]
    plc: PlcProcess

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        names = ("Dose", "Bad", "Late", "Held", "Queue", "Fault", "Local", "Config", "Farm", "Lie", "Links", "Frozen")
        cls.plc = PlcProcess(Path(cls.directory.name), [
            *[block(name) for name in names],
            block("Meal", interval_s=1, portion_mg=40),
            block("Capped", cap_mg=700),
            block("Water", min_do_ug_per_l=5000),
            block("Empty", hopper_mg=120),
            {"name": "Plain", "profile": "scalar"},
        ])  # fmt: skip

    @classmethod
    def tearDownClass(cls) -> None:
        code = cls.plc.terminate()
        cls.directory.cleanup()
        if code != 0:
            raise AssertionError(f"SIGTERM ended the PLC with {code}")

    async def asyncSetUp(self) -> None:
        self.client = self.plc.client()
        await self.client.connect()
        self.addAsyncCleanup(self.client.disconnect)

    async def feeder(self, name: str) -> Feeder:
        return await Feeder.at(self.client, name)

    async def test_a_block_written_twice_doses_once(self) -> None:
        feeder = await self.feeder("Dose")
        command = await feeder.command(token=99)
        await feeder.write("Cmd", command)
        sts = await feeder.until(lambda s: s["last_state"] == "DONE")
        await feeder.write("Cmd", command)
        await feeder.scans(3)
        self.assertEqual(
            await feeder.sts() | {"plc_time_s": 0, "heartbeat": 0}, sts | {"plc_time_s": 0, "heartbeat": 0}
        )
        self.assertEqual((sts["last_token"], sts["last_dispensed_mg"], sts["total_dispensed_mg"]), (99, 500, 500))
        self.assertEqual([line["kind"] for line in self.plc.ledger("Dose")], ["start", "end"])
        self.assertEqual(self.plc.ends("Dose")[0]["token"], 99)
        self.assertEqual(
            decode_hist(await feeder.read("Hist")), [{"seq": 1, "token": 99, "state": "DONE", "dispensed_mg": 500}]
        )

    async def test_what_is_not_a_valid_slot_is_ignored(self) -> None:
        feeder = await self.feeder("Bad")
        good = await feeder.command()
        wrong = {
            "checksum": [*good[:-1], good[-1] ^ 1],
            "torn amount": [*good[:3], 9000, *good[4:]],
            "epoch": sealed([good[0] ^ 1, *good[1:-1]]),
            "used seq": sealed([good[0], 0, *good[2:-1]]),
            "seq ahead": sealed([good[0], 2, *good[2:-1]]),
            "length": good[:-1],
        }
        for what, words in wrong.items():
            with self.subTest(what):
                await feeder.write("Cmd", words)
                await feeder.scans(2)
                self.assertEqual((await feeder.sts())["last_seq"], 0)
        self.assertEqual(self.plc.ledger("Bad"), [])

    async def test_refusals_and_fences_consume_the_slot(self) -> None:
        feeder = await self.feeder("Late")
        await feeder.until(lambda s: s["plc_time_s"] > 0)
        for wish, state, reason in (
            ({"expires_at_s": 0}, "EXPIRED", "EXPIRED"),
            ({"amount_mg": 100_001}, "REJECTED", "OUT_OF_RANGE"),
            ({"op": 9}, "REJECTED", "BAD_OP"),
            ({"op": Op.NOP, "expires_at_s": 0}, "DONE", "NONE"),
        ):
            command = await feeder.command(**wish)
            await feeder.write("Cmd", command)
            sts = await feeder.until(lambda s, seq=command[1]: s["last_seq"] == seq)
            self.assertEqual((sts["last_state"], sts["last_reason"]), (state, reason))
        self.assertEqual(decode_hist(await feeder.read("Hist"))[0]["state"], "NOP")
        self.assertEqual(self.plc.ledger("Late"), [])

    async def test_hold_ends_a_dose_and_refuses_the_next(self) -> None:
        feeder = await self.feeder("Held")
        await feeder.write("Cmd", await feeder.command(amount_mg=50_000, rate=SLOW))
        await feeder.until(lambda s: s["last_dispensed_mg"] > 0)
        await feeder.write("Hold", True, BOOL)
        sts = await feeder.until(lambda s: s["last_state"] != "STARTED")
        self.assertEqual((sts["last_state"], sts["last_reason"]), ("ABORTED", "HELD"))
        self.assertIn("held", sts["flags"])
        end = self.plc.ends("Held")[0]
        self.assertTrue(0 < end["dispensed_mg"] < 50_000)
        self.assertEqual(sts["last_dispensed_mg"], end["dispensed_mg"])
        self.assertEqual(sts["total_dispensed_mg"], end["dispensed_mg"])
        await feeder.write("Cmd", await feeder.command())
        sts = await feeder.until(lambda s: s["last_seq"] == 2)
        self.assertEqual((sts["last_state"], sts["last_reason"]), ("REJECTED", "HELD"))
        await feeder.write("Hold", False, BOOL)
        await feeder.until(lambda s: "held" not in s["flags"])

    async def test_a_dose_waits_for_a_meal_and_a_fence_does_not(self) -> None:
        feeder = await self.feeder("Queue")
        self.plc.control("set", tag="Queue.Rate_mg_per_s", value=SLOW)
        self.assertTrue(self.plc.control("feed", robot="Queue", mg=50_000)["ok"])
        await feeder.write("Cmd", await feeder.command(amount_mg=300))
        await feeder.scans(3)
        self.assertEqual((await feeder.sts())["last_seq"], 0)
        await feeder.write("Cmd", await feeder.command(op=Op.NOP))
        await feeder.until(lambda s: (s["last_seq"], s["last_op"]) == (1, Op.NOP))
        await feeder.write("Cmd", await feeder.command(amount_mg=300, rate=FAST))
        self.plc.control("fault", robot="Queue", code=1)  # ends the meal; the dose is then refused
        sts = await feeder.until(lambda s: s["last_seq"] == 2)
        self.assertEqual((sts["last_state"], sts["last_reason"]), ("REJECTED", "FAULT"))
        self.assertEqual([(e["cause"], e["state"]) for e in self.plc.ends("Queue")], [("FARM", "ABORTED")])

    async def test_a_fault_is_reset_by_its_own_code_only(self) -> None:
        feeder = await self.feeder("Fault")
        await feeder.write("Cmd", await feeder.command(amount_mg=50_000, rate=SLOW))
        await feeder.until(lambda s: s["last_dispensed_mg"] > 0)
        self.plc.control("fault", robot="Fault", code=2)
        sts = await feeder.until(lambda s: s["last_state"] == "ABORTED")
        self.assertEqual((sts["last_reason"], sts["fault_code"]), ("JAM", 2))
        self.assertLessEqual({"fault", "jam"}, set(sts["flags"]))
        await feeder.write("ResetFault", 1)
        await until(lambda: feeder.read("ResetFault"), lambda code: code == 0)
        self.assertIn("fault", (await feeder.sts())["flags"])
        await feeder.write("ResetFault", 2)
        sts = await feeder.until(lambda s: "fault" not in s["flags"])
        self.assertEqual(sts["fault_code"], 2)

    async def test_local_mode_shuts_the_wire_out(self) -> None:
        feeder = await self.feeder("Local")
        self.plc.control("local", on=True, robot="Local")
        await feeder.write("Cmd", await feeder.command())
        sts = await feeder.until(lambda s: s["last_seq"] == 1)
        self.assertEqual(sts["last_reason"], "LOCAL")
        self.assertIn("local", sts["flags"])
        self.assertNotIn("remote_enabled", sts["flags"])
        self.assertTrue(self.plc.control("feed", robot="Local", mg=70)["ok"])
        await feeder.until(lambda s: s["total_dispensed_mg"] == 70)

    async def test_cap_water_and_hopper_limit_a_dose(self) -> None:
        capped = await self.feeder("Capped")
        await capped.write("Cmd", await capped.command(amount_mg=600))
        await capped.until(lambda s: s["last_state"] == "DONE")
        await capped.write("Cmd", await capped.command(amount_mg=101))
        self.assertEqual((await capped.until(lambda s: s["last_seq"] == 2))["last_reason"], "CAP")

        water = await self.feeder("Water")
        self.plc.control("set", tag="Water.Oxygen", value="NaN")
        await water.write("Cmd", await water.command())
        sts = await water.until(lambda s: s["last_seq"] == 1)
        self.assertEqual(sts["last_reason"], "INTERLOCK")
        self.assertIn("interlock", sts["flags"])

        empty = await self.feeder("Empty")
        await empty.write("Cmd", await empty.command(amount_mg=500))
        sts = await empty.until(lambda s: s["last_state"] == "ABORTED")
        self.assertEqual((sts["last_reason"], sts["last_dispensed_mg"], sts["hopper_mg"]), ("HOPPER_EMPTY", 120, 0))

    async def test_config_is_taken_on_its_own_base_only(self) -> None:
        feeder = await self.feeder("Config")
        epoch = (await feeder.sts())["epoch"]

        def words(base: int, rev: int, portion: int, windows: tuple[int, ...] = ()) -> list[int]:
            head = [epoch, base, rev, Mode.AUTOMATIC, portion, 300, NONE, 4000, NONE, len(windows) // 2, *windows]
            return sealed(head + [0] * (CFG_LEN - 1 - len(head)))

        wrong = {
            "base": words(0, 2, 900),
            "base ahead": words(2, 3, 900),
            "revision": words(1, 3, 900),
            "epoch": sealed([epoch ^ 1, *words(1, 2, 900)[1:-1]]),
            "checksum": [*words(1, 2, 900)[:-1], 0],
            "portion": words(1, 2, 0),
            "window": words(1, 2, 900, (60, 60)),
        }
        for what, block_words in wrong.items():
            with self.subTest(what):
                await feeder.write("Cfg", block_words)
                await feeder.scans(2)
                self.assertEqual((await feeder.cfg())["rev"], 1)
        await feeder.write("Cfg", words(1, 2, 900, (360, 1200, 1300, 30)))
        cfg = await until(feeder.cfg, lambda c: c["rev"] == 2)
        self.assertEqual(
            (cfg["portion_mg"], cfg["windows"], cfg["min_do_ug_per_l"]), (900, [[360, 1200], [1300, 30]], 4000)
        )
        self.assertEqual(await feeder.read("CfgSts"), words(1, 2, 900, (360, 1200, 1300, 30)))

    async def test_an_edit_at_the_farm_raises_the_revision(self) -> None:
        feeder = await self.feeder("Farm")
        self.assertEqual(self.plc.control("edit_config", feeder="Farm", portion_mg=0), {"ok": True, "rev": 2})
        cfg = await until(feeder.cfg, lambda c: c["rev"] == 2)
        self.assertEqual((cfg["base_rev"], cfg["portion_mg"]), (1, 0))
        self.assertFalse(self.plc.control("edit_config", feeder="Farm", portions=1)["ok"])

    async def test_a_lying_plc_takes_a_config_back(self) -> None:
        feeder = await self.feeder("Lie")
        self.plc.control("lie", kind="revert_after_scans", n=3, feeder="Lie")
        taken = [(await feeder.sts())["epoch"], 1, 2, 1, 900, 300, NONE, NONE, NONE]
        await feeder.write("Cfg", sealed(taken + [0] * (CFG_LEN - 1 - len(taken))))
        await until(feeder.cfg, lambda c: c["portion_mg"] == 900)
        cfg = await until(feeder.cfg, lambda c: c["portion_mg"] == 1500)
        self.assertEqual(cfg["rev"], 1)
        # Put back for good: the block that still stands in Cfg is not taken again.
        beat = (await feeder.sts())["heartbeat"]
        await feeder.until(lambda s: s["heartbeat"] > beat + 10)
        self.assertEqual((await feeder.cfg())["portion_mg"], 1500)

    async def test_the_plc_feeds_itself(self) -> None:
        feeder = await self.feeder("Meal")
        await feeder.until(lambda s: s["total_dispensed_mg"] >= 80)
        first, second = [line for line in self.plc.ledger("Meal") if line["kind"] == "start"][:2]
        self.assertEqual((first["cause"], first["planned_mg"]), ("SCHEDULE", 40))
        self.assertGreaterEqual(second["start"] - first["start"], 990)
        self.assertEqual((await feeder.sts())["last_seq"], 0)

    async def test_scalar_dose_and_config(self) -> None:
        feeder = await self.feeder("Plain")
        await feeder.write("DoseAmount", 1.25, DOUBLE)
        await feeder.write("DoseSeq", 41)
        await feeder.write("DoseStart", True, BOOL)
        await until(lambda: feeder.read("DoseDone"), lambda seq: seq == 41)
        self.assertEqual((await feeder.read("DoseEcho"), await feeder.read("DoseDispensed")), (41, 1.25))
        self.assertFalse(await feeder.read("DoseStart"))
        self.assertEqual(await feeder.read("TotalGrams"), 1.25)
        self.assertEqual([(e["seq"], e["dispensed_mg"]) for e in self.plc.ends("Plain")], [(41, 1250)])

        await feeder.write("Hold", True, BOOL)
        await until(lambda: feeder.read("Status"), lambda status: status == 3)
        await feeder.write("DoseSeq", 42)
        await feeder.write("DoseStart", True, BOOL)
        await until(lambda: feeder.read("DoseStart"), lambda on: not on)
        self.assertEqual(await feeder.read("DoseEcho"), 41)

        await feeder.write("Portion", 2.5004, DOUBLE)
        await until(lambda: feeder.read("Portion"), lambda grams: grams == 2.5)
        await feeder.write("Portion", float("nan"), DOUBLE)
        await until(lambda: feeder.read("Portion"), lambda grams: grams == 2.5)
        self.plc.control("edit_config", feeder="Plain", interval_s=77)
        await until(lambda: feeder.read("Interval"), lambda seconds: seconds == 77)

    async def test_a_lost_reply_is_not_a_lost_write(self) -> None:
        feeder = await self.feeder("Links")
        command = await feeder.command()
        self.plc.control("drop_replies", n=1)
        with self.assertRaises((TimeoutError, asyncio.TimeoutError)):
            await asyncio.wait_for(feeder.write("Cmd", command), 0.3)
        await feeder.until(lambda s: s["last_state"] == "DONE")
        self.assertEqual(len(self.plc.ends("Links")), 1)

    async def test_a_lost_write_is_never_executed(self) -> None:
        feeder = await self.feeder("Links")
        before, command = len(self.plc.ends("Links")), await feeder.command()
        self.plc.control("lose_writes", n=1)
        with self.assertRaises((TimeoutError, asyncio.TimeoutError)):
            await asyncio.wait_for(feeder.write("Cmd", command), 0.3)
        beat = (await feeder.sts())["heartbeat"]
        await feeder.until(lambda s: s["heartbeat"] > beat + 3)
        self.assertEqual(len(self.plc.ends("Links")), before)
        await feeder.write("Cmd", command)
        await feeder.until(lambda s: s["last_state"] == "DONE")

    async def test_values_of_bad_quality_say_so(self) -> None:
        feeder = await self.feeder("Links")
        self.plc.control("quality", code="BadNoCommunication")
        try:
            with self.assertRaises(ua.UaStatusCodeError):
                await feeder.read("Alive")
        finally:
            self.plc.control("quality", code="Good")
        await feeder.read("Alive")

    async def test_a_frozen_plc_answers_old_values(self) -> None:
        feeder = await self.feeder("Frozen")
        self.plc.control("freeze", on=True)
        try:
            alive = await feeder.read("Alive")
            await feeder.write("Cmd", await feeder.command())
            self.assertEqual(await feeder.read("Alive"), alive)
        finally:
            self.plc.control("freeze", on=False)
        await feeder.until(lambda s: s["last_state"] == "DONE")


class KilledPlc(unittest.IsolatedAsyncioTestCase):
    """What a PLC remembers, and what it forgets."""

    async def test_kills_and_lost_memory(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            feeders = [block("Latch", motor_delay_ms=60_000), block("Motor"), {"name": "Plain", "profile": "scalar"}]
            plc = PlcProcess(Path(directory), feeders, "--user", "agent", "--password", "s3cret")
            try:
                await self._refuses_strangers(plc)
                async with plc.client("agent", "s3cret") as client:
                    before = await self._start_doses(client, plc)
                plc.kill()
                plc.start()
                async with plc.client("agent", "s3cret") as client:
                    await self._check_nothing_resumed(client, plc, before)
                    await self._check_lost_memory(client, plc)
            finally:
                plc.kill()

    async def _refuses_strangers(self, plc: PlcProcess) -> None:
        for client in (plc.client(), plc.client("agent", "wrong"), plc.client("stranger", "s3cret")):
            with self.assertRaises(ua.UaError):
                await client.connect()

    async def _start_doses(self, client: Client, plc: PlcProcess) -> dict[str, Any]:
        latch, motor, plain = [await Feeder.at(client, name) for name in ("Latch", "Motor", "Plain")]
        self.assertEqual(plc.memory()["epoch"], (await latch.sts())["epoch"], "an epoch is retained before it is shown")
        command = await latch.command(token=1)
        await latch.write("Cmd", command)
        await latch.until(lambda s: s["last_state"] == "STARTED")
        await motor.write("Cmd", await motor.command(token=2, amount_mg=90_000, rate=SLOW))
        await motor.until(lambda s: s["last_dispensed_mg"] > 0)
        await motor.write("Hold", False, BOOL)
        await plain.write("Hold", True, BOOL)
        await until(lambda: plain.read("Status"), lambda status: status == 3)
        return {"command": command, "motor": await motor.sts()}

    async def _check_nothing_resumed(self, client: Client, plc: PlcProcess, before: dict[str, Any]) -> None:
        latch, motor, plain = [await Feeder.at(client, name) for name in ("Latch", "Motor", "Plain")]
        await latch.write("Cmd", before["command"])
        await latch.scans(3)
        sts = await latch.sts()
        self.assertEqual((sts["last_seq"], sts["last_token"]), (1, 1))
        self.assertEqual(
            (sts["last_state"], sts["last_reason"], sts["last_dispensed_mg"]), ("ABORTED", "POWER_LOSS", 0)
        )
        self.assertEqual(plc.ledger("Latch"), [], "killed between latch and motor: nothing was dispensed")

        sts = await motor.sts()
        self.assertEqual(
            (sts["last_state"], sts["last_reason"], sts["epoch"]), ("ABORTED", "POWER_LOSS", before["motor"]["epoch"])
        )
        self.assertGreaterEqual(sts["last_dispensed_mg"], before["motor"]["last_dispensed_mg"])
        self.assertEqual([line["kind"] for line in plc.ledger("Motor")], ["start", "end"])
        self.assertEqual(plc.ends("Motor")[0]["dispensed_mg"], sts["last_dispensed_mg"])
        self.assertEqual(sts["total_dispensed_mg"], sts["last_dispensed_mg"])
        self.assertGreaterEqual(sts["plc_time_s"], before["motor"]["plc_time_s"])
        self.assertTrue(await plain.read("Hold"), "a hold survives a power loss")

    async def _check_lost_memory(self, client: Client, plc: PlcProcess) -> None:
        motor, plain = [await Feeder.at(client, name) for name in ("Motor", "Plain")]
        old = (await motor.sts())["epoch"]
        plc.control("edit_config", feeder="Motor", portion_mg=1)
        answer = plc.control("lose_memory")
        sts = await motor.until(lambda s: s["epoch"] == answer["epoch"])
        self.assertNotEqual(sts["epoch"], old)
        self.assertEqual((sts["last_seq"], sts["total_dispensed_mg"], sts["last_state"]), (0, 0, "NONE"))
        self.assertEqual(((await motor.cfg())["rev"], (await motor.cfg())["portion_mg"]), (1, 1500))
        self.assertFalse(await plain.read("Hold"))


if __name__ == "__main__":
    unittest.main()
