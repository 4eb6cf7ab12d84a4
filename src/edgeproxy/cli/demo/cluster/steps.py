"""The steps of the demo of several POPs. Each one acts, observes, and prints what it observed.

A step raises UnmetError if the result is not what it claims. What all tables must be after an edit
is known from the same SQL on a database in memory (`table`); that it is in force at a POP is what
its proxy says, and what real clients reach there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from edgeproxy.cli.demo.clients import (
    AMERICAN,
    BRAZILIAN,
    GERMAN,
    Client,
    check_addresses,
    countries,
)
from edgeproxy.cli.demo.cluster.environment import ClusterEnvironment, hosts, typed_edit
from edgeproxy.cli.demo.cluster.pop import GOSSIP_INTERVAL_MS, Pop
from edgeproxy.cli.demo.cluster.table import deletion, insertion, rows_after, setting
from edgeproxy.cli.demo.cluster.visitors import Visitors
from edgeproxy.cli.demo.environment import NODES
from edgeproxy.cli.demo.expected import eventually, expect
from edgeproxy.cli.demo.output import Output
from edgeproxy.cli.table import text_table

CLIENTS = (BRAZILIAN, AMERICAN, GERMAN)


class ClusterSteps:
    """The demo of several POPs, step by step."""

    def __init__(self, environment: ClusterEnvironment, output: Output) -> None:
        self._environment = environment
        self._output = output
        self._edits: list[str] = []  # all that was done to the table, in order
        self._visitors: dict[Pop, Visitors] = {}

    # -- the steps ---------------------------------------------------------------------

    def start(self, count: int) -> None:
        """Start everything. Raises EdgeProxyError where an address cannot be had."""
        environment = self._environment
        check_addresses(hosts(count))
        self._output.command(f"cd {environment.directory}")
        self._output.command(environment.make_key())
        environment.make_pops(count)
        environment.locate(countries())
        self._backends = environment.start_backends()
        regions = ", ".join(dict.fromkeys(NODES.values()))
        self._output.met(f"{len(NODES)} backends run, each a process of its own, in {regions}")
        environment.start_pops()
        pops = environment.pops
        for pop in pops:
            self._visitors[pop] = Visitors(pop, environment.variables_of(pop))
        self._output.met(f"{count} POPs serve, with a routing table each; all are empty")
        eventually("every POP is connected with all others", self._are_connected)
        self._output.met(f"all are connected, and probe each other every {GOSSIP_INTERVAL_MS} ms")

    def fill(self) -> None:
        """Write the backends at one POP: they must be in force at all."""
        pops = self._environment.pops
        self._output.heading(f"1. {len(NODES)} backends are written at {pops[0].name}, with SQL")
        secs = self._edit(pops[0], insertion(self._backends))
        for pop in pops:
            for client in CLIENTS:
                self._visitors[pop].connect(client)
        self._show(secs)
        self._output.met("they are in force at all POPs, and every client was served in its region")

    def change(self) -> None:
        """Disable a node at another POP: clients must avoid it at all."""
        editor = self._environment.pops[1]
        node = self._visitors[editor].reached[BRAZILIAN]
        self._output.heading(f"2. {node} is disabled at {editor.name}")
        secs = self._edit(editor, setting("healthy", 0, node))
        for visitors in self._visitors.values():
            visitors.connect(BRAZILIAN)
            expect(f"new clients avoid {node}", False, visitors.reached[BRAZILIAN] == node)
        self._show(secs, [BRAZILIAN])
        self._output.met("new clients avoid it at all POPs")
        open_count = sum(visitors.ask_all() for visitors in self._visitors.values())
        self._output.met(f"all {open_count} connections opened so far stayed open")

    def part(self) -> None:
        """Cut one POP off, edit on both sides, heal: all edits must be in all tables."""
        *left, right = self._environment.pops
        self._output.heading(f"3. {right.name} is cut off, and both sides are edited")
        began = time.monotonic()
        self._environment.relay.cut([right.name])
        eventually("both sides notice the cut", lambda: self._are_apart(left, right))
        self._output.met(f"both sides noticed it within {time.monotonic() - began:.2f} s")
        typed, members = self._environment.members(left[0])
        self._output.command(typed)
        self._output.aside(members)
        before = list(self._edits)
        here, there = (self._visitors[pop] for pop in (left[0], right))
        german, american = here.reached[GERMAN], there.reached[AMERICAN]
        shared = self._visitors[right].reached[BRAZILIAN]
        edits = (
            [
                setting("healthy", 0, german),
                setting("weight", 5, shared),
            ],
            [
                deletion(american),
                setting("soft_limit", 20, shared),
            ],
        )
        for pops, statements in zip((left, [right]), edits, strict=True):
            self._edits = list(before)
            for sql in statements:
                self._edit(pops[0], sql, pops)
        self._expect_sides(left, right, before, edits)
        for visitors in (here, there):
            visitors.ask_all()
            for client in (AMERICAN, GERMAN):
                visitors.connect(client)
        expect(f"{left[0].name} avoids {german}", False, here.reached[GERMAN] == german)
        expect(f"{right.name} has {german}", german, there.reached[GERMAN])
        expect(f"{left[0].name} has {american}", american, here.reached[AMERICAN])
        expect(f"{right.name} avoids {american}", False, there.reached[AMERICAN] == american)
        self._show({left[0]: None, right: None}, [AMERICAN, GERMAN])
        self._output.met("clients are served on both sides, by what each side knows")
        self._output.note("the network is healed")
        self._edits = [*before, *edits[0], *edits[1]]
        began = time.time()
        self._environment.relay.cut([])
        self._show(self._spread(self._environment.pops, began), [])
        self._output.met(
            f"all tables are equal, with the edits of both sides: {german} is disabled,\n"
            f"  {american} is gone, {shared} has weight 5 and soft limit 20"
        )

    def crash(self) -> None:
        """Kill the agent of a POP: clients go on, and what is edited meanwhile arrives."""
        first, pop, *_ = self._environment.pops
        self._output.heading(f"4. The agent of {pop.name} is killed")
        pid = eventually(f"the agent of {pop.name} answers", pop.agent)["pid"]
        began = time.time()
        os.kill(pid, signal.SIGKILL)
        self._output.command(f"kill -KILL {pid}  # the agent of {pop.name}")
        node = self._visitors[pop].reached[GERMAN]
        self._type(first, setting("weight", 4, node))
        edited = time.time()
        self._visitors[pop].connect(GERMAN)
        served = self._visitors[pop].ask_all()
        self._output.met(f"its {served} connections stay open, and new clients are served")
        self._spread(self._environment.pops, began)
        agent = eventually(f"{pop.name} has an agent again", pop.agent)
        expect("that is another agent", True, agent["pid"] != pid)
        started = pop.logged_at("replication")
        expect("there was none when the edit was made", True, edited < started)
        arrived = pop.logged_at("table_published")
        self._output.met(
            f"another one began after {started - began:.2f} s; the edit was in force after "
            f"{arrived - began:.2f} s"
        )

    def hang_up(self) -> None:
        """Close all connections of the steps so far."""
        for visitors in self._visitors.values():
            visitors.hang_up()

    # -- parts of the steps -------------------------------------------------------------------

    def _edit(self, pop: Pop, sql: str, pops: Sequence[Pop] | None = None) -> Mapping[Pop, float]:
        """Run SQL at a POP; return after how many seconds it was in force at each POP."""
        began = time.time()
        self._type(pop, sql)
        return self._spread(pops or self._environment.pops, began)

    def _type(self, pop: Pop, sql: str) -> None:
        self._output.command(typed_edit(pop, sql))
        self._environment.edit(pop, sql)
        self._edits.append(sql)

    def _spread(self, pops: Sequence[Pop], began: float) -> Mapping[Pop, float]:
        """Wait until all edits are in force at these POPs; return after how many seconds."""
        rows = rows_after(self._edits)
        waiting = list(pops)

        def look() -> bool | None:
            waiting[:] = [pop for pop in waiting if not pop.has(rows)]
            return not waiting or None

        names = ", ".join(pop.name for pop in pops)
        eventually(f"all edits are in force at {names}", look)
        return {pop: pop.logged_at("table_published") - began for pop in pops}

    def _expect_sides(
        self, left: Sequence[Pop], right: Pop, before: list[str], edits: Sequence[list[str]]
    ) -> None:
        for pop in left:
            expect(
                f"{pop.name} has the edits of its side", rows_after(before + edits[0]), pop.rows()
            )
        expect(f"{right.name} has its own edits", rows_after(before + edits[1]), right.rows())

    def _show(self, secs: Mapping[Pop, float | None], clients: Sequence[Client] = CLIENTS) -> None:
        """Print a table of POPs: after how long an edit was in force, and what clients reach."""
        timed = any(each is not None for each in secs.values())
        headers = ["POP", "REGION", *["IN FORCE AFTER"] * timed]
        rows = [
            [
                pop.name,
                pop.region,
                *[f"{each:.2f} s" for each in (secs[pop],) if each is not None],
                *(self._visitors[pop].reached[client] for client in clients),
            ]
            for pop in secs
        ]
        self._output.note(text_table([*headers, *(each.name for each in clients)], rows))

    def _are_connected(self) -> bool | None:
        pops = self._environment.pops
        return all(len(pop.connected()) == len(pops) - 1 for pop in pops) or None

    def _are_apart(self, left: Sequence[Pop], right: Pop) -> bool | None:
        """Return whether all see that one is gone, and that one sees that any is."""
        gone = {"suspect", "dead"}
        seen = {pop.states().get(right.name) for pop in left}
        return (seen <= gone and not gone.isdisjoint(right.states().values())) or None
