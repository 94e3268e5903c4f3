"""Every step that PLC, wire, agents, server and misfortune can take from a state.

Each function yields (what happened, the next state). `agent/src/executor/{dose,slot,recover}.rs`,
`agent/src/ledger` and `server/src/domain/settle.rs` hold the originals.
"""

from collections.abc import Iterator

from world import (
    ABORTED, ACCEPTED, APPLIED, DONE, DOSE, EXPIRED, LATCHED, MARKED, NEW, NOBODY, NOP, NOT_RUN, OPEN, PARTIAL,
    REFUSED, RUNNING, SAID_APPLIED, SAID_NOT_RUN, SETTLED, TOLD, TURNING, UNCERTAIN, UNSETTLED,
    Agent, Block, Budget, Entry, Journal, Order, Rules, Slot, World, put,
)  # fmt: skip

Steps = Iterator[tuple[tuple, World]]
VERDICTS = {DONE: APPLIED, ABORTED: PARTIAL, REFUSED: NOT_RUN}


def steps(w: World, rules: Rules) -> Steps:
    """All of them."""
    yield from plc(w, rules)
    yield from accept(w)
    if rules.database:
        yield from database(w)
    for i, agent in enumerate(w.agents):
        yield from session(w, i, agent, rules)
        if not rules.database:
            yield from copies(w, i, agent, rules)
        match agent.task:
            case ():
                yield from take(w, i, agent)
            case ("read", d, epoch, last):
                yield from begin(w, i, agent, d, epoch, last)
            case ("drive", d, op, sent):
                yield from drive(w, i, agent, d, op, sent, rules)
            case ("history", d):
                yield from history(w, i, agent, d, rules)


# The PLC, and what reaches it


def plc(w: World, rules: Rules) -> Steps:
    """Whatever was ever written may arrive, now or later or never, in any order, again, and torn."""
    for block in w.wire:
        yield from scan(w, block, ("arrives", block), rules)
    if not rules.checksum:
        for a in w.wire:
            for b in w.wire:
                torn = Block(a.epoch, a.sequence, b.op, b.command)
                if torn not in w.wire:
                    yield from scan(w, torn, ("arrives torn", a, b), rules)
    slot = w.slots[0] if w.slots else None
    if slot and slot.state == LATCHED:
        yield ("the motor starts",), run(w, slot.ghost)._replace(slots=put(w.slots, 0, slot._replace(state=TURNING)))
    if slot and slot.state == TURNING:
        yield ("the dose ends",), w._replace(slots=put(w.slots, 0, slot._replace(state=DONE)))
    if slot and slot.state in RUNNING and w.left.cuts:
        state = LATCHED if rules.resumes else ABORTED
        after = w._replace(left=w.left._replace(cuts=w.left.cuts - 1))
        yield ("POWER CUT or hold",), after._replace(slots=put(w.slots, 0, slot._replace(state=state)))
    if w.left.resets:
        left = w.left._replace(resets=w.left.resets - 1)
        yield ("MEMORY LOST: new epoch",), w._replace(epoch=w.epoch + 1, slots=(), left=left)


def run(w: World, command: int) -> World:
    """The motor turns for a command."""
    return w if command == NOBODY else w._replace(fed=put(w.fed, command, w.fed[command] + 1))


def scan(w: World, block: Block, how: tuple, rules: Rules) -> Steps:
    """The PLC takes a block only if it is the next of its own epoch and no dose runs."""
    mine = block.epoch == w.epoch or not rules.epoch
    if not mine or block.sequence != w.last + 1 or (w.slots and w.slots[0].state in RUNNING):
        return
    token = rules.tokens(block.command)
    states = (DONE,) if block.op == NOP else (LATCHED, REFUSED)
    for state in states:
        slot = Slot(block.sequence, block.op, token, state, block.command)
        yield (*how, state), w._replace(slots=(slot, *w.slots)[: rules.history])
    if not rules.latch_first and block.op == DOSE and w.left.cuts:
        left = w.left._replace(cuts=w.left.cuts - 1)
        yield (*how, "runs, POWER CUT before it is latched"), run(w, block.command)._replace(left=left)


# The server


def accept(w: World) -> Steps:
    """The next command is accepted under the current session, if no older one is in doubt."""
    # Who was told that it never ran has an answer, and does not ask again after a database was put back.
    d = next((d for d, o in enumerate(w.orders) if o.word == NEW and not w.said[d] & SAID_NOT_RUN), None)
    holder = next((a for a in w.agents if a.session == w.session and a.session), None)
    for e, o in enumerate(w.orders):
        if o.word in (ACCEPTED, MARKED) and not o.settled and w.left.people:
            left = w.left._replace(people=w.left.people - 1)
            settled = put(w.orders, e, o._replace(settled=True))
            yield ("a person settles", e), w._replace(orders=settled, left=left)
    if d is None or not holder:
        return
    if all(o.word in (EXPIRED, TOLD) or o.settled for o in w.orders[:d]):
        order = Order(ACCEPTED, w.session, holder.process, False)
        yield ("server accepts", d, "session", w.session), w._replace(orders=put(w.orders, d, order))


def database(w: World) -> Steps:
    """The database is copied beside the running server; later it is put back, and every session ends."""
    if w.left.copies:
        left = w.left._replace(copies=w.left.copies - 1)
        yield ("a BACKUP of the database",), w._replace(saved=(w.session, w.orders, w.chain), left=left)
    if w.saved:
        session, orders, chain = w.saved
        agents = tuple(a._replace(session=0, task=() if a.task[:1] == ("read",) else a.task) for a in w.agents)
        back = w._replace(session=session, orders=orders, chain=chain, saved=None, agents=agents)
        yield ("the database is PUT BACK",), back


def acknowledged(w: World, i: int, d: int) -> World:
    """The server committed what the agent told; the agent keeps where, and lists it no more."""
    a = w.agents[i]
    entry = a.journal.entries[d]
    assert entry
    chain = (*w.chain, (d, entry.word))
    entries = put(a.journal.entries, d, entry._replace(acked=True))
    journal = a.journal._replace(entries=entries, anchor=chain)
    return w._replace(chain=chain, agents=put(w.agents, i, a._replace(journal=journal)))


def session(w: World, i: int, a: Agent, rules: Rules) -> Steps:
    """Hellos, outcomes told, a person's word carried to the agent, and crashes."""
    if w.left.hellos:
        left = w.left._replace(hellos=w.left.hellos - 1)
        for readable in (True, False):
            yield ("agent", i, "HELLO" if readable else "HELLO, PLC unreadable"), hello(w, i, a, readable, rules, left)
    if a.session and a.session == w.session:
        for d, entry in enumerate(a.journal.entries):
            order = w.orders[d]
            if entry is None or order.word not in (ACCEPTED, MARKED):
                continue
            if entry.word not in (OPEN, SETTLED):
                word = MARKED if entry.word == UNCERTAIN else TOLD
                if word != order.word:
                    told = w._replace(orders=put(w.orders, d, order._replace(word=word)))
                    if rules.database:
                        told = acknowledged(told, i, d)
                    yield ("agent", i, "tells", d, entry.word), told
            if entry.word in UNSETTLED and order.settled:
                yield ("agent", i, "hears that", d, "is settled"), says(w, i, a, d, SETTLED, a.task)
    if w.left.crashes and (a.task or a.session):
        left = w.left._replace(crashes=w.left.crashes - 1)
        yield ("agent", i, "CRASH"), started(w, i, a, a.journal, rules)._replace(left=left)


def hello(w: World, i: int, a: Agent, readable: bool, rules: Rules, left: Budget) -> World:
    """Ends the agent's session, settles what older ones left, and journals the new one."""
    journal = observed(a.journal, w) if readable else a.journal
    restored = journal.session > w.session or (rules.anchored and w.chain[: len(journal.anchor)] != journal.anchor)
    reaches = journal.session >= max(o.session for o in w.orders) and not restored
    agrees = journal_slot(journal, w) == (w.epoch, w.last)
    orders = []
    for order, known in zip(w.orders, journal.entries, strict=True):
        word = order.word
        entry = known if known and not known.acked else None
        if word == ACCEPTED and entry is None:
            stranger = rules.same_process and order.process != a.process
            if rules.whole and (not reaches or stranger or (readable and not agrees)):
                word = MARKED
            elif readable or not rules.whole:
                word = EXPIRED
        elif word in (ACCEPTED, MARKED) and entry and entry.word in (APPLIED, PARTIAL, NOT_RUN):
            word = TOLD
        elif word == NEW and entry:
            word = TOLD if entry.word in (APPLIED, PARTIAL, NOT_RUN) else MARKED
        orders.append(order._replace(word=word))
    said = tuple(s | SAID_NOT_RUN if o.word == EXPIRED else s for s, o in zip(w.said, orders, strict=True))
    new = max(w.session, journal.session) + 1
    task = a.task if a.task and a.task[0] != "read" else ()
    journal, chain = journal._replace(session=new), w.chain
    if rules.database:
        # Listed and known, or to be told again to a database that was put back.
        chain = (*chain, ("hello", new))
        ended = {APPLIED, PARTIAL, NOT_RUN}
        entries = tuple(e and e._replace(acked=not restored and (e.acked or e.word in ended)) for e in journal.entries)
        journal = journal._replace(entries=entries, anchor=chain)
    agents = put(w.agents, i, Agent(a.process, new, task, journal))
    return w._replace(session=new, orders=tuple(orders), said=said, agents=agents, left=left, chain=chain)


# An agent


def observed(journal: Journal, w: World) -> Journal:
    """The poller saw the PLC; after a loss of memory the journal's slot follows it."""
    if journal.plc_epoch == w.epoch:
        return journal
    return journal._replace(plc_epoch=w.epoch, slot=(w.epoch, w.last))


def journal_slot(journal: Journal, w: World) -> tuple[int, int]:
    """An open intent explains a slot that the PLC has not consumed yet."""
    epoch, sequence = journal.slot
    explained = any(e and e.word in UNSETTLED and e[:2] == journal.slot for e in journal.entries)
    return (epoch, w.last) if explained and epoch == w.epoch and w.last == sequence - 1 else journal.slot


def started(w: World, i: int, a: Agent, journal: Journal, rules: Rules) -> World:
    """A process starts on a journal: what is open is fenced, never repeated."""
    found = next((d for d, e in enumerate(journal.entries) if e and e.word in UNSETTLED), None)
    task = () if found is None else ("drive", found, NOP if rules.give_up == "fence" else DOSE, True)
    process = a.process + 2 if rules.same_process else a.process
    return w._replace(agents=put(w.agents, i, Agent(process, 0, task, journal)))


def copies(w: World, i: int, a: Agent, rules: Rules) -> Steps:
    """A journal is copied once; later it is put back, or runs beside its original."""
    if w.left.copies and i == 0 and (rules.live or not a.session):
        taken = w._replace(left=w.left._replace(copies=w.left.copies - 1))
        if rules.clone:
            twin = Agent(1, 0, (), a.journal)
            both = taken._replace(agents=(*w.agents, twin))
            yield ("THE DISK IS CLONED: agent 1",), started(both, 1, twin, a.journal, rules)
        else:
            yield ("a BACKUP of the journal",), taken._replace(copy=a.journal)
    if w.copy:
        yield ("the journal is PUT BACK",), started(w._replace(copy=None), i, a, w.copy, rules)


def doing(w: World, i: int, a: Agent, task: tuple) -> World:
    """The agent goes on to another task."""
    return w._replace(agents=put(w.agents, i, a._replace(task=task)))


def says(w: World, i: int, a: Agent, d: int, word: str, task: tuple) -> World:
    """The agent journals a word on a command."""
    entry = a.journal.entries[d]
    assert entry
    journal = a.journal._replace(entries=put(a.journal.entries, d, entry._replace(word=word, acked=False)))
    claim = {APPLIED: SAID_APPLIED, NOT_RUN: SAID_NOT_RUN}.get(word, 0)
    said = put(w.said, d, w.said[d] | claim) if claim else w.said
    return w._replace(said=said, agents=put(w.agents, i, a._replace(task=task, journal=journal)))


def take(w: World, i: int, a: Agent) -> Steps:
    """A command of the agent's session is read, and the PLC: it must be free, and so must the journal."""
    if any(e and e.word in UNSETTLED for e in a.journal.entries) or (w.slots and w.slots[0].state in RUNNING):
        return
    for d, order in enumerate(w.orders):
        if order.word == NEW or not a.session or order.session != a.session or a.journal.entries[d]:
            continue
        journal = observed(a.journal, w)
        epoch, sequence = journal.slot
        if epoch == w.epoch and w.last == sequence - 1:
            fence = Block(epoch, sequence, NOP, NOBODY)
            yield ("agent", i, "fences a leftover", sequence), sent(doing(w, i, a._replace(journal=journal), ()), fence)
        else:
            task = ("read", d, w.epoch, w.last)
            yield ("agent", i, "reads for", d, (w.epoch, w.last)), doing(w, i, a._replace(journal=journal), task)


def begin(w: World, i: int, a: Agent, d: int, epoch: int, last: int) -> Steps:
    """The intent is journaled, with its slot."""
    entries = put(a.journal.entries, d, Entry(epoch, last + 1, OPEN))
    journal = a.journal._replace(entries=entries, slot=(epoch, last + 1))
    task = ("drive", d, DOSE, False)
    yield ("agent", i, "journals", d, (epoch, last + 1)), doing(w, i, a._replace(journal=journal), task)


def sent(w: World, block: Block) -> World:
    """A block is on the wire, for ever."""
    return w if block in w.wire else w._replace(wire=tuple(sorted((*w.wire, block))))


def drive(w: World, i: int, a: Agent, d: int, op: str, was_sent: bool, rules: Rules) -> Steps:
    """Writes dose or fence, gives up, looks; only what is read back decides."""
    entry = a.journal.entries[d]
    assert entry
    if op == DOSE or (was_sent and rules.give_up == "fence"):
        block = Block(entry.epoch, entry.sequence, op, d)
        yield ("agent", i, "writes", block), sent(doing(w, i, a, ("drive", d, op, True)), block)
    if not was_sent:
        free = a._replace(journal=a.journal._replace(slot=(entry.epoch, entry.sequence - 1)))
        yield ("agent", i, "sent nothing of", d), says(w, i, free, d, NOT_RUN, ())
        return
    if op == DOSE:
        yield ("agent", i, "gives up", d), doing(w, i, a, ("drive", d, NOP, True))
    if rules.give_up == "timeout" and op == NOP:
        yield ("agent", i, "times out", d), says(w, i, a, d, NOT_RUN, ())
    if entry.word == OPEN:
        yield ("agent", i, "doubts", d), says(w, i, a, d, UNCERTAIN, a.task)
    word = judged(w, entry, rules.tokens(d), rules)
    if word == "PASSED":
        yield ("agent", i, "sees that", d, "was passed"), doing(w, i, a, ("history", d))
    elif word == "LOST" and not rules.same_slot:
        again = a.journal._replace(entries=put(a.journal.entries, d, Entry(w.epoch, w.last + 1, OPEN)))
        yield ("agent", i, "tries again", d), doing(w, i, a._replace(journal=again), ("drive", d, DOSE, True))
    elif word == "LOST":
        yield ("agent", i, "sees memory lost", d), says(w, i, a, d, UNCERTAIN, ())
    elif word == "WAITING":
        if rules.give_up == "readback" and op == NOP:
            yield ("agent", i, "reads", d, "as not consumed"), says(w, i, a, d, NOT_RUN, ())
    elif word != "RUNNING":
        yield ("agent", i, "reads the end of", d, word), says(w, i, a, d, word, ())


def judged(w: World, entry: Entry, token: int, rules: Rules) -> str:
    """What the slot says about a dose (`judge` of slot.rs)."""
    slot = w.slots[0] if w.slots else Slot(0, NOP, 0, DONE, NOBODY)
    if rules.epoch and entry.epoch != w.epoch:
        return "LOST"
    mine = (slot.token == token or not rules.token) and (slot.op == DOSE or not rules.op)
    passed = slot.sequence - entry.sequence
    if passed == 0 or (mine and not rules.sequence):
        return NOT_RUN if not mine else "RUNNING" if slot.state in RUNNING else VERDICTS[slot.state]
    return "PASSED" if passed > 0 else "WAITING" if passed == -1 else "LOST"


def history(w: World, i: int, a: Agent, d: int, rules: Rules) -> Steps:
    """A read of its own, after the status: what the PLC keeps of a sequence that was passed."""
    entry = a.journal.entries[d]
    assert entry
    kept = next((s for s in w.slots if s.sequence == entry.sequence), None)
    if rules.history_checked and w.epoch != entry.epoch:
        word = UNCERTAIN
    elif kept is None or kept.state in RUNNING:
        word = UNCERTAIN
    elif kept.op != DOSE or (rules.token and kept.token != rules.tokens(d)):
        word = NOT_RUN
    else:
        word = VERDICTS[kept.state]
    yield ("agent", i, "reads in the history of", d, word), says(w, i, a, d, word, ())
