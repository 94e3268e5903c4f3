"""What one state of the handshake's model holds, and the rules that a variant may break.

Everything is a tuple, so that a state is its own key. A command is a small number; its token is a function
of it, and two commands may share one (`Rules.collide`).
"""

from dataclasses import dataclass
from typing import NamedTuple

NOP, DOSE = "NOP", "DOSE"
# A slot's state. LATCHED: retained, the motor stands still. TURNING: feed falls.
LATCHED, TURNING, DONE, ABORTED, REFUSED = "LATCHED", "TURNING", "DONE", "ABORTED", "REFUSED"
RUNNING = (LATCHED, TURNING)
# A journal's word on a command. SETTLED: by a person, which claims nothing.
OPEN, UNCERTAIN, APPLIED, PARTIAL, NOT_RUN, SETTLED = "OPEN", "UNCERTAIN", "APPLIED", "PARTIAL", "NOT_RUN", "SETTLED"
UNSETTLED = (OPEN, UNCERTAIN)
# The server's word. ACCEPTED is also its own doubt from silence; MARKED: absence decides nothing any more.
NEW, ACCEPTED, MARKED, EXPIRED, TOLD = "NEW", "ACCEPTED", "MARKED", "EXPIRED", "TOLD"
# What was ever said about a command; claims outlive the journal that made them.
SAID_APPLIED, SAID_NOT_RUN = 1, 2
NOBODY = -1


class Block(NamedTuple):
    """What is written to a slot; `command` stands for token, outlet and amount."""

    epoch: int
    sequence: int
    op: str
    command: int


class Slot(NamedTuple):
    """A consumed slot. `ghost` is the command that it truly was; nobody can read it."""

    sequence: int
    op: str
    token: int
    state: str
    ghost: int


class Entry(NamedTuple):
    """A command in a journal, with the slot that it was given."""

    epoch: int
    sequence: int
    word: str
    acked: bool = False  # the server has this word: no hello lists it any more (`Rules.database`)


class Journal(NamedTuple):
    """What an agent has durably."""

    session: int
    slot: tuple[int, int]
    plc_epoch: int
    entries: tuple[Entry | None, ...]
    anchor: tuple = ()  # the place in the server's chain that it was told last


class Agent(NamedTuple):
    """A running agent: which process it is, its session (0: none), what it is doing, and its journal.

    `task` is () or one of ("read", command, epoch, last), ("drive", command, op, sent), ("history", command).
    """

    process: int
    session: int
    task: tuple
    journal: Journal


class Order(NamedTuple):
    """A command as the server has it: its word, under which session and process, settled by a person."""

    word: str
    session: int
    process: int
    settled: bool


class Budget(NamedTuple):
    """What may still happen."""

    crashes: int
    resets: int
    cuts: int
    hellos: int
    copies: int
    people: int


class World(NamedTuple):
    """One state. `fed` counts how often each command truly ran; `said` is what was claimed."""

    epoch: int
    slots: tuple[Slot, ...]
    wire: tuple[Block, ...]
    fed: tuple[int, ...]
    said: tuple[int, ...]
    session: int
    orders: tuple[Order, ...]
    agents: tuple[Agent, ...]
    copy: Journal | None
    left: Budget
    chain: tuple = ()  # what the server committed
    saved: tuple | None = None  # a copy of its database: session, orders, chain

    @property
    def last(self) -> int:
        """The last sequence that the PLC consumed."""
        return self.slots[0].sequence if self.slots else 0


@dataclass(frozen=True)
class Rules:
    """The product's rules, and what a weakened variant takes away. Defaults are the product."""

    give_up: str = "fence"  # or "readback": not consumed, so not executed; or "timeout": unread, so not executed
    epoch: bool = True
    checksum: bool = True
    token: bool = True
    op: bool = True
    sequence: bool = True
    same_slot: bool = True  # False: a dose whose slot was lost is tried again under a new sequence
    latch_first: bool = True  # False: the PLC may lose its power after the motor ran and before it latched
    resumes: bool = False  # True: the PLC goes on with a dose after a power loss
    whole: bool = True  # False: what any journal does not list is EXPIRED
    same_process: bool = False  # True: and only if it is the process that was sent the command
    anchored: bool = True  # False: that a database was put back is known by its session alone
    history_checked: bool = False  # True: the history counts only if the epoch is still the same after it
    # What the farm is like.
    collide: bool = False
    clone: bool = False  # the copy becomes a second agent; else an old journal that is put back
    database: bool = False  # the copy is of the server's database, at any time, and is put back
    live: bool = False  # the copy may be taken while a session is open; else only of a stopped agent
    history: int = 2
    commands: int = 2

    def tokens(self, command: int) -> int:
        """The first 32 bits of the name's hash; a fence of nobody has 0."""
        return 0 if command == NOBODY else 1 if self.collide else command + 1


def put(items: tuple, index: int, value: object) -> tuple:
    """The tuple with one item replaced."""
    return (*items[:index], value, *items[index + 1 :])


def first(rules: Rules, left: Budget) -> World:
    """A commissioned farm: one agent, nothing fed yet."""
    none = (0,) * rules.commands
    journal = Journal(0, (1, 0), 1, (None,) * rules.commands)
    orders = (Order(NEW, 0, 0, False),) * rules.commands
    return World(1, (), (), none, none, 0, orders, (Agent(0, 0, (), journal),), None, left)
