"""The routing table in force, the tables that wait to replace it, and those it replaced.

The only place in `core` that two threads use:

    building thread   publish   frees retired tables, builds a table, lets it wait
    gate thread       adopt     puts the latest waiting table in force, retires the others

The threads share two queues, each with one writer and one reader, whose `append` and `popleft`
are atomic. So there is no lock, and a decision never waits for a build.

Invariants:
* Only the gate thread sees `table` change, and only in `adopt`: a decision uses one table.
* A client whose server name was looked up in one table finds its app in the next one, too.
* A table is taken apart only by the building thread, after the gate thread has retired it.
* A backend whose live state changes during a build is ranked anew when that table comes into
  force (`LiveStates.watch`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import BuildWatch, LiveState, LiveStates
from edgeproxy.core.pacing import Pause, no_pause
from edgeproxy.core.routing.server_names import NO_SERVER_NAMES, ServerNames
from edgeproxy.core.routing.table import RoutingTable


class Publication:
    """Publishes routing tables; see the module for which thread may call what.

    Attributes:
        table: The table in force.
        waiting: Published tables that are not yet in force, with what changed during the build.
    """

    def __init__(
        self, lives: LiveStates, pop_region: str, moved: Callable[[LiveState], object]
    ) -> None:
        """`moved` is called by `adopt` for each backend whose address has changed."""
        self._lives = lives
        self._pop_region = pop_region
        self._moved = moved
        self.table = RoutingTable((), lives, pop_region)
        self.waiting: deque[tuple[RoutingTable, BuildWatch]] = deque()
        self._latest = self.table
        self._retired: deque[RoutingTable] = deque()

    def publish(
        self,
        backends: Collection[Backend],
        scopes: Collection[str],
        server_names: ServerNames = NO_SERVER_NAMES,
        rest: Pause = no_pause,
    ) -> RoutingTable:
        """Build a table of these backends and names, which waits until it is adopted.

        May run on another thread than the gate, but only on one at a time. `rest` is called
        now and then to let other threads run (`core/pacing`).
        """
        while self._retired:
            self._retired.popleft().retire()
        watch = self._lives.watch()
        latest = self._latest
        table = RoutingTable(
            backends,
            self._lives,
            self._pop_region,
            latest.server_names.apps.union(scopes),
            server_names,
            latest.version + 1,
            rest,
        )
        self._lives.forget(latest.candidates, table.candidates, rest=rest)
        self._latest = table
        self.waiting.append((table, watch))
        return table

    def adopt(self) -> None:
        """Put the latest published table in force, if one is waiting. Gate thread only."""
        watch = None
        while self.waiting:
            self._retired.append(self.table)
            self.table, watch = self.waiting.popleft()
        if watch is None:
            return
        for candidate in self.table.moved:
            candidate.live.address = candidate.backend.address
            self._moved(candidate.live)
        self.table.moved.clear()
        for backend_id in watch.touched:
            touched = self.table.candidates.get(backend_id)
            if touched is not None:
                touched.weigh()
                touched.place()
        self._lives.settle(watch)
