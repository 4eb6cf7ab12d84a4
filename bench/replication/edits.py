"""How soon an edit at one POP is in force at all others."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.replication.figures import Bench, show_times
from tests.cluster_pops import Cluster, ClusterPop
from tests.waiting import PAUSE

LEAST_MS, MOST_MS = 5, 150
EDITS = 100
SETTLE_SECS = 3.0
"""Round trips are known by then."""
LOOK_SECS = 0.02
PATIENCE_SECS = 20.0


class InForce:
    """Waits until a backend has a weight in force, and says since when.

    A proxy is asked only when its log says that it has another table, so that nothing is measured
    but what would happen without the measurement.
    """

    def __init__(self, pop: ClusterPop) -> None:
        self._pop = pop
        self._seen = len(pop.proxy.seen("table_published"))

    def since(self, backend_id: str, weight: int) -> float | None:
        """Return when it was in force, None if it is not."""
        events = self._pop.proxy.seen("table_published")
        if len(events) == self._seen or self._pop.weights().get(backend_id) != weight:
            return None
        at: float = self._pop.proxy.seen("table_published")[-1]["at"]
        return at


def times_of(
    others: list[ClusterPop], backend_id: str, weight: int, edit: Callable[[], object]
) -> list[float]:
    """Make an edit; return after how long it was in force at each of the others."""
    waiting = {pop.name: InForce(pop) for pop in others}
    found: dict[str, float] = {}
    began_at = time.monotonic()
    edit()
    while len(found) < len(others):
        if time.monotonic() > began_at + PATIENCE_SECS:
            told = "\n".join(f"{pop.name} {pop.weights()} {pop.rows()}" for pop in others)
            raise AssertionError(f"{backend_id} {weight} only at {found}\n{told}")
        for name, each in waiting.items():
            if name not in found and (at := each.since(backend_id, weight)) is not None:
                found[name] = at - began_at
        PAUSE.wait(LOOK_SECS)
    return list(found.values())


def measure_edits(bench: Bench) -> None:
    """Section `edits`."""
    for loss in (0.0, 0.3):
        folder = bench.folder / f"edits-{loss}"
        folder.mkdir()
        _measure(bench, folder, loss)


def _measure(bench: Bench, folder: Path, loss: float) -> None:
    with Cluster(folder, bench.names) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        cluster.start()
        pops = list(cluster)
        pops[0].add(*(f"by-hand-{pop.name}" for pop in pops))
        cluster.wait_until_equal()
        lossy(cluster, loss)
        PAUSE.wait(SETTLE_SECS)
        for way in ("sqlite", "api"):
            last: list[float] = []
            each: list[float] = []
            for number in range(bench.many(EDITS)):
                pop = pops[number % len(pops)]
                others = [other for other in pops if other is not pop]
                weight = 2 + number
                edit = (_by_hand if way == "sqlite" else _by_api)(pop, weight)
                backend_id = f"by-{'hand' if way == 'sqlite' else 'api'}-{pop.name}"
                times = times_of(others, backend_id, weight, edit)
                last.append(max(times))
                each += times
            what = f"edit by {way}{f', {loss:.0%} loss' if loss else ''}"
            p99 = 1.5 if loss else 0.5 if bench.pops <= 3 else 0.7
            show_times(f"{what}, in force at all others", last, None if loss else 0.3, p99)
            show_times(f"{what}, in force at another", each)
        _tell(cluster)


def _tell(cluster: Cluster) -> None:
    """Say what changes came by."""
    sums: dict[str, int] = {}
    for pop in cluster:
        status = pop.status()
        for name, count in (status["counters"] if status else {}).items():
            sums[name] = sums.get(name, 0) + count
    print("  counters of all:", " ".join(f"{k}={v}" for k, v in sums.items() if v), flush=True)


def _by_hand(pop: ClusterPop, weight: int) -> Callable[[], object]:
    return lambda: pop.set_weight(f"by-hand-{pop.name}", weight)


def _by_api(pop: ClusterPop, weight: int) -> Callable[[], object]:
    body = {
        "id": f"by-api-{pop.name}",
        "app": "myapp",
        "region": "sa",
        "ip": "127.0.0.1",
        "port": 9,
        "weight": weight,
    }

    def edit() -> None:
        status, said = pop.ask_api("POST", "/api/v1/register", body)
        assert status in {200, 201}, said

    return edit


def lossy(cluster: Cluster, loss: float) -> None:
    """Let every direction lose so much."""
    for (one, other), link in list(cluster.underlay.links.items()):
        cluster.underlay.set_one_way(one, other, link._replace(loss=loss))
