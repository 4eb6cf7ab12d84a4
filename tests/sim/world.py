"""One history: a seed decides who writes what, what fails and when, and what the network does."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

from edgeproxy.core.cluster.own_copy import KEEP_MS
from edgeproxy.core.cluster.rows import BACKENDS, ROUTES, TABLES, Edit, Key, Values
from edgeproxy.core.cluster.swim.records import State
from tests.sim.mix import Mix, mix_of
from tests.sim.oracle import Fault
from tests.sim.patches import simulated
from tests.sim.pop import Machines, Pop
from tests.sim.routing import IDS
from tests.sim.store import PLACES

DISKS = Path("/dev/shm")
REST_SECS = 900.0
DEAD_SECS = 90.0
SKEW_MS = 600_000
LOST_CLOCK_MS = 4 * KEEP_MS
"""So far behind is a clock that has lost its time."""


class Result(NamedTuple):
    """What came of a history.

    Attributes:
        fault: What must not be; "" if nothing was found.
        kind: That of its mix.
        steps: What happened how often.
        transactions: How many were committed.
        excused: What was lost, and why.
        rest_secs: After how long all was at rest.
    """

    seed: int
    fault: str
    kind: str
    steps: Counter[str]
    transactions: int
    excused: Counter[str]
    rest_secs: float
    history: tuple[str, ...]


def run(seed: int, kind: str = "") -> Result:
    """Run the history of a seed, of one kind if that is given."""
    logged = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        rng = Random(seed)
        return World(seed, rng, mix_of(seed, rng, kind)).run()
    finally:
        logging.disable(logged)


class World:
    """The POPs and what happens to them."""

    def __init__(self, seed: int, rng: Random, mix: Mix) -> None:
        self._seed = seed
        self._rng = rng
        self._mix = mix
        self._history: list[str] = []
        self._steps: Counter[str] = Counter()
        self._number = 0
        self._stopping: set[str] = set()
        self._weeks = 0
        self._joined = 0
        self._pops = 0

    def run(self) -> Result:
        mix, rng = self._mix, self._rng
        fault, rest_secs = "", 0.0
        with ExitStack() as stack:
            folder = None
            if mix.files or mix.bridges:
                folder = Path(
                    tempfile.mkdtemp(prefix="sim-", dir=DISKS if DISKS.is_dir() else None)
                )
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._machines = machines = Machines(rng, mix, folder)
            machines.tell = self._tell
            stack.enter_context(simulated(machines))
            try:
                self._begin()
                for _ in range(mix.steps):
                    self._step()
                    machines.scheduler.run(rng.expovariate(1 / mix.pause_secs))
                rest_secs = self._come_to_rest()
            except Fault as found:
                fault = str(found)
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
                logging.getLogger(__name__).debug("fault", exc_info=True)
            finally:
                for pop in machines.pops.values():
                    try:
                        pop.crash()
                    except Fault as found:
                        fault = fault or str(found)
        excused = Counter(machines.oracle.excused.values())
        return Result(
            self._seed,
            fault,
            mix.kind,
            self._steps,
            machines.oracle.transactions,
            excused,
            rest_secs,
            tuple(self._history),
        )

    def _tell(self, text: str) -> None:
        self._history.append(f"{self._machines.scheduler.now - 1000:9.3f}  {text}")

    # -- steps -----------------------------------------------------------------------

    def _begin(self) -> None:
        for _ in range(self._mix.size):
            self._new_pop()
        if self._mix.gossips:
            self._machines.scheduler.run(8.0 if self._mix.size < 50 else 30.0)
        else:
            self._machines.scheduler.run(1.0)

    def _new_pop(self) -> None:
        pops = self._machines.pops
        contacts = [pop.host for pop in pops.values()][:2] or ["10.0.0.1"]
        pop = Pop(self._machines, self._pops, contacts)
        self._pops += 1
        pop.skew_ms = self._rng.choice((0, 0, self._rng.randint(-SKEW_MS, SKEW_MS)))
        pop.start()

    def _up(self) -> list[Pop]:
        pops = self._machines.pops.values()
        return [pop for pop in pops if pop.is_up and pop.name not in self._stopping]

    def _down(self) -> list[Pop]:
        return [pop for pop in self._machines.pops.values() if not pop.is_up]

    def _step(self) -> None:
        rng = self._rng
        if rng.random() < 0.55:
            self._write()
            return
        steps: list[Callable[[], str]] = [
            self._part,
            self._part,
            self._heal,
            self._cut_pair,
            self._break_off,
            self._worsen,
            self._set_clock,
            self._crash,
            self._crash_soon,
            self._crash_soon,
            self._stop,
            self._start,
            self._start,
            self._start,
            self._pass_weeks,
            self._pause,
            self._fill_disk,
        ]
        if not self._mix.is_tidy:
            steps += [self._back_up, self._back_up, self._restore, self._restore, self._leave]
        if self._mix.size < 50:
            steps.append(self._join)
        if self._mix.bridges:
            steps += [self._lose_table, self._remove, self._edit_soon]
            steps += [self._copy, self._put_back] * 3
        do = rng.choice(steps)
        done = do()
        if done:
            self._steps[do.__name__.strip("_")] += 1
            self._tell(done)

    def _write(self) -> None:
        up = [pop for pop in self._up() if not pop.is_paused]
        if not up:
            return
        pop = self._rng.choice(up)
        self._steps["write"] += 1
        if pop.routing is not None:
            self._tell(f"{pop.name} {pop.routing.edit(self._rng.choice(IDS))}")
            return
        edits = [self._edit(pop) for _ in range(self._rng.choice((1, 1, 2, 3)))]
        shown = [f"{key.id}={values and next(iter(values.values()))}" for key, values in edits]
        self._tell(f"{pop.name} writes {', '.join(shown)}")
        pop.act(lambda: pop.write(edits))

    def _edit(self, pop: Pop) -> Edit:
        self._number += 1
        table = self._rng.choice((ROUTES, BACKENDS))
        key = Key(table, f"{table[0]}{self._rng.randrange(self._mix.rows)}")
        if self._rng.random() < 0.3:
            return Edit(key, None)
        known = pop.routes if table == ROUTES else TABLES[table]
        is_one = self._rng.random() < 0.7
        chosen = self._rng.choice(list(known.groups.values())) if is_one else known.columns
        values: Values = dict.fromkeys(chosen, self._number)
        return Edit(key, values)

    def _part(self) -> str:
        """Divide the POPs, in any way."""
        names = sorted(self._machines.pops)
        count = self._rng.choice((2, 2, 3, len(names)))
        sides = {name: self._rng.randrange(count) for name in names}
        for one in names:
            for other in names:
                if one < other and sides[one] != sides[other]:
                    self._machines.network.cut(one, other)
        return f"the network parts: {sides}"

    def _cut_pair(self) -> str:
        one, other = self._rng.sample(sorted(self._machines.pops), 2)
        is_one_way = self._rng.random() < 0.3
        self._machines.network.cut(one, other, is_one_way=is_one_way)
        return f"no way from {one} to {other}{'' if is_one_way else ' and back'}"

    def _heal(self) -> str:
        network = self._machines.network
        if not network.cuts:
            return ""
        network.cuts.clear()
        return "all ways are there"

    def _break_off(self) -> str:
        network = self._machines.network
        if not network.sessions:
            return ""
        pairs = sorted(network.sessions, key=sorted)
        pair = self._rng.choice(pairs)
        network.break_off(network.sessions[pair])
        return f"the session of {' and '.join(sorted(pair))} breaks"

    def _worsen(self) -> str:
        network = self._machines.network
        network.loss = self._rng.choice((0.0, 0.05, 0.2))
        network.repeats = self._rng.choice((0.0, 0.1))
        return f"loss is {network.loss}, repeats {network.repeats}"

    def _set_clock(self) -> str:
        pop = self._rng.choice(list(self._machines.pops.values()))
        pop.skew_ms = self._rng.randint(-SKEW_MS, SKEW_MS)
        if self._rng.random() < 0.2:
            pop.skew_ms -= LOST_CLOCK_MS
        return f"the clock of {pop.name} is {pop.skew_ms} ms ahead"

    def _crash(self) -> str:
        up = self._up()
        if not up:
            return ""
        pop = self._rng.choice(up)
        pop.crash()
        return f"{pop.name} crashes"

    def _crash_soon(self) -> str:
        up = self._up()
        if not up:
            return ""
        pop = self._rng.choice(up)
        fuse = pop.fuse
        if pop.routing is not None and self._rng.random() < 0.7:
            fuse = pop.routing.fuse
        place, count = self._rng.choice(PLACES), self._rng.randint(1, 6)
        fuse.burn(count, place)
        return f"{pop.name} will crash {place} its transaction {count}"

    def _stop(self) -> str:
        up = [pop for pop in self._up() if not pop.is_paused]
        if not up:
            return ""
        pop = self._rng.choice(up)
        self._begin_stop(pop)
        return f"{pop.name} is stopped"

    def _begin_stop(self, pop: Pop) -> None:
        self._stopping.add(pop.name)
        pop.stop()

    def _start(self) -> str:
        down = self._down()
        if not down:
            return ""
        self._start_one(self._rng.choice(down))
        return ""

    def _start_one(self, pop: Pop) -> None:
        self._stopping.discard(pop.name)
        pop.start()

    def _pass_weeks(self) -> str:
        """Let tombstones become old. Virtual time does not pass: wall time does."""
        if self._weeks == 3:
            return ""
        self._weeks += 1
        self._machines.elapsed_ms += KEEP_MS + self._rng.randint(0, KEEP_MS)
        return "weeks pass"

    def _pause(self) -> str:
        up = self._up()
        if not up:
            return ""
        pop = self._rng.choice(up)
        secs = self._rng.uniform(0.5, 10.0)
        pop.pause(secs)
        return f"{pop.name} stands still for {secs:.1f} s"

    def _fill_disk(self) -> str:
        up = self._up()
        if not up:
            return ""
        pop = self._rng.choice(up)
        pop.fuse.is_full = True
        life = pop.life

        def free() -> None:
            if pop.life == life:
                pop.fuse.is_full = False

        self._machines.scheduler.after(self._rng.uniform(0.5, 5.0), free)
        return f"the disk of {pop.name} is full"

    def _back_up(self) -> str:
        pops = list(self._machines.pops.values())
        if not pops:
            return ""
        pop = self._rng.choice(pops)
        pop.back_up()
        return f"a backup of {pop.name} is made"

    def _restore(self) -> str:
        pops = [pop for pop in self._machines.pops.values() if pop.backups]
        if not pops:
            return ""
        pop = self._rng.choice(pops)
        pop.crash()
        self._stopping.discard(pop.name)
        pop.restore()
        return f"a backup of {pop.name} is restored"

    def _join(self) -> str:
        if self._joined == 2:
            return ""
        self._joined += 1
        self._new_pop()
        return "a POP joins"

    def _leave(self) -> str:
        """Let a POP go for good, in order or not."""
        pops = list(self._machines.pops.values())
        if len(pops) < 3 or self._rng.random() < 0.5:
            return ""
        pop = self._rng.choice(pops[1:])
        pop.crash()
        self._for_good(pop)
        return f"{pop.name} is gone for good"

    def _for_good(self, pop: Pop) -> None:
        del self._machines.pops[pop.name]
        self._stopping.discard(pop.name)
        self._machines.oracle.gone(pop.name)

    # -- routing databases -----------------------------------------------------------

    def _routed(self) -> Pop:
        return self._rng.choice(list(self._machines.pops.values()))

    def _lose_table(self) -> str:
        pop = self._routed()
        assert pop.routing is not None
        return f"all rows of {pop.name} vanish" if pop.routing.delete_all() else ""

    def _copy(self) -> str:
        pop = self._routed()
        assert pop.routing is not None
        pop.routing.copy()
        return f"the routing database of {pop.name} is copied"

    def _put_back(self) -> str:
        pop = self._routed()
        assert pop.routing is not None
        is_done = pop.routing.put_back()
        return f"the routing database of {pop.name} is an old copy" if is_done else ""

    def _remove(self) -> str:
        pop = self._routed()
        assert pop.routing is not None
        pop.routing.remove()
        return f"the routing database of {pop.name} is deleted"

    def _edit_soon(self) -> str:
        pop = self._routed()
        assert pop.routing is not None
        pop.routing.edits_soon = True
        return f"somebody will edit {pop.name} between a look and a write"

    # -- rest ------------------------------------------------------------------------

    def _come_to_rest(self) -> float:
        """End all faults, wait until all POPs have told each other everything, and look."""
        machines = self._machines
        network, scheduler = machines.network, machines.scheduler
        self._tell("all faults end")
        network.cuts.clear()
        network.loss = network.repeats = 0.0
        scheduler.run(3.0)  # those that stop have stopped
        for pop in list(machines.pops.values()):
            pop.fuse.reset()
            pop.resumes_at = 0.0
            if pop.routing is not None:
                pop.routing.fuse.reset()
                pop.routing.edits_soon = False
            if not pop.is_up:
                self._start_one(pop)
        began_at = scheduler.now
        while not self._is_level():
            if scheduler.now - began_at > REST_SECS:
                break
            scheduler.run(1.0)
        rest_secs = scheduler.now - began_at
        pops = machines.pops
        machines.oracle.check_rest(
            {name: pop.disk for name, pop in pops.items()},
            {name: pop.replica for name, pop in pops.items()},
        )
        for pop in pops.values():
            if pop.routing is not None:
                pop.routing.check_rest(pop.engine)
        if self._mix.gossips:
            self._check_members()
        return rest_secs

    def _is_level(self) -> bool:
        pasts = set()
        for pop in self._machines.pops.values():
            copy = pop.replica.copy
            pasts.add((copy.vector_id, copy.generation_id, copy.digest))
        is_level = len(pasts) == 1
        if is_level and self._mix.bridges:
            self._machines.scheduler.run(5.0)
            copies = [pop.replica.copy for pop in self._machines.pops.values()]
            is_level = len({(each.vector_id, each.digest) for each in copies}) == 1
        return is_level

    def _check_members(self) -> None:
        """Wait until all members know who is up and who is not."""
        scheduler = self._machines.scheduler
        began_at = scheduler.now
        while faults := self._wrong_members():
            if scheduler.now - began_at > DEAD_SECS:
                raise Fault(f"at rest, members are wrong about each other: {faults}")
            scheduler.run(1.0)

    def _wrong_members(self) -> list[str]:
        pops = self._machines.pops
        faults = []
        for pop in pops.values():
            members = pop.engine._membership.roster.members
            for other in pops.values():
                held = members.get(other.name)
                if other is not pop and (held is None or held.state != State.ALIVE):
                    faults.append(f"{pop.name} does not hold {other.name} to be up")
            faults += [
                f"{pop.name} holds {name} to be up"
                for name, member in members.items()
                if name not in pops and member.is_live
            ]
        return faults
