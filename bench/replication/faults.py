"""How soon all is well after links were cut, a writer was killed, or a POP has crashed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from pathlib import Path

from bench.replication.edits import LEAST_MS, MOST_MS, SETTLE_SECS, InForce, lossy
from bench.replication.figures import Bench, show, show_times
from tests.cluster_pops import Cluster, ClusterPop
from tests.system.proxy import Event
from tests.waiting import PAUSE, wait_until

CHANGES = 500
"""Of each side of a partition; all of them are missed by the other one."""
WRITES = 10
CRASHES = 20
PATIENCE_SECS = 120.0


def begun(folder: Path, bench: Bench) -> Cluster:
    """Return a cluster that is to be entered, with its folder."""
    folder.mkdir()
    return Cluster(folder, bench.names)


def measure_partitions(bench: Bench) -> None:
    """Section `partition`."""
    with begun(bench.folder / "partition", bench) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        cluster.start()
        PAUSE.wait(SETTLE_SECS)
        for secs in bench.partition_secs:
            times = [_heal(cluster, secs, f"{secs:g}-{n}") for n in range(3 if secs < 30 else 2)]
            what = f"partition of {secs:g} s, heal to equal tables, worst"
            show(what, max(times), "s", 5, " ".join(f"{each:.2f}" for each in times))


def _heal(cluster: Cluster, secs: float, mark: str) -> float:
    """Cut the cluster in two halves that edit; return how long equality takes afterwards."""
    names = list(cluster.pops)
    sides = names[: len(names) // 2], names[len(names) // 2 :]
    cluster.underlay.partition(*sides)
    began_at = time.monotonic()
    pause = secs * 0.9 / CHANGES
    for number in range(CHANGES):
        for members in sides:
            name = members[number % len(members)]
            cluster[name].add(f"{mark}-{name}-{number}")
        wait_secs = began_at + number * pause - time.monotonic()
        if wait_secs > 0:
            PAUSE.wait(wait_secs)
    for side in sides:
        cluster.wait_until_equal(*side)
    PAUSE.wait(max(0.0, began_at + secs - time.monotonic()))
    healed_at = time.monotonic()
    cluster.underlay.heal()
    cluster.wait_until_equal(secs=PATIENCE_SECS)
    taken = time.monotonic() - healed_at
    count = len(cluster[names[0]].rows())
    assert count % (2 * CHANGES) == 0, count
    return taken


def measure_writer(bench: Bench) -> None:
    """Section `writer`."""
    with begun(bench.folder / "writer", bench) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        cluster.start()
        writer, *others = cluster
        writer.add("row")
        cluster.wait_until_equal()
        PAUSE.wait(SETTLE_SECS)
        weight = 1
        for pause_secs in (0.5, 15.0):
            since_start, since_ready, had = [], [], 0
            for _ in range(bench.many(WRITES if pause_secs < 5 else WRITES // 2)):
                weight += 1
                writer.set_weight("row", weight)
                writer.crash()
                PAUSE.wait(pause_secs)
                had += all(pop.weights()["row"] == weight for pop in others)
                waiting = [InForce(pop) for pop in others]
                if any(pop.weights()["row"] == weight for pop in others):
                    writer.start()
                    cluster.wait_until_connected()
                    continue
                began_at = time.monotonic()
                writer.begin()
                at = _all_since(waiting, "row", weight)
                since_start.append(at - began_at)
                since_ready.append(at - writer.proxy.wait_for("replication")["at"])
                cluster.wait_until_connected()
            what = f"writer killed after the ack, back after {pause_secs:g} s"
            note = f"n = {len(since_start)}; {had} edits were everywhere before the kill"
            if since_start:
                show_times(f"{what}, everywhere since its start", since_start, None, 3, note)
                show_times(f"{what}, … since its agent serves", since_ready)


def _all_since(waiting: list[InForce], backend_id: str, weight: int) -> float:
    found: dict[int, float] = {}

    def are_all() -> bool:
        for number, each in enumerate(waiting):
            if number not in found and (at := each.since(backend_id, weight)) is not None:
                found[number] = at
        return len(found) == len(waiting)

    wait_until(are_all, f"{backend_id} {weight} everywhere", PATIENCE_SECS)
    return max(found.values())


def measure_crashes(bench: Bench) -> None:
    """Section `crash`."""
    rng = random.Random(1)
    with begun(bench.folder / "crash", bench) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        cluster.start()
        PAUSE.wait(SETTLE_SECS)
        last: list[float] = []
        wrong = 0
        for _ in range(bench.many(CRASHES)):
            victim = cluster[rng.choice(list(cluster.pops))]
            others = [pop for pop in cluster if pop is not victim]
            PAUSE.wait(rng.random())
            marks = {pop.name: len(pop.proxy.seen("member_dead")) for pop in others}
            began_at = time.monotonic()
            victim.crash()
            wait_until(
                lambda: all(_news(pop, marks) for pop in others),  # noqa: B023
                "the crash known",
                PATIENCE_SECS,
            )
            found = [_news(pop, marks) for pop in others]
            wrong += sum(line["node"] != victim.name for lines in found for line in lines)
            last.append(max(lines[0]["at"] for lines in found) - began_at)
            victim.start()
            cluster.wait_until_connected()
        show_times("crash known everywhere", last, None, 10)
        show("others that were called dead meanwhile", wrong, "", 0)


def _news(pop: ClusterPop, marks: dict[str, int]) -> list[Event]:
    return pop.proxy.seen("member_dead")[marks[pop.name] :]


def measure_accusations(bench: Bench) -> None:
    """Section `accusations`."""
    with begun(bench.folder / "accusations", bench) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        cluster.start()
        lossy(cluster, 0.3)
        PAUSE.wait(SETTLE_SECS)
        dead, suspected = _watched(cluster, bench.watch_secs)
        what = f"called dead in {bench.watch_secs:g} s"
        show(f"{what} at 30 % loss", dead, "", 0, f"suspected {suspected} times")
        lossy(cluster, 0.0)
        slow = next(iter(cluster))
        dead, suspected = _watched(cluster, bench.watch_secs, slow=slow)
        show(f"{what}, one stopped 1 s of 2", dead, "", 0, f"suspected {suspected} times")
        dead, suspected = _watched(cluster, bench.watch_secs, slow=slow, stop_secs=15.0)
        note = f"suspected {suspected} times; itself is not counted"
        show(f"{what}, one stopped for 15 s of 20", dead, "", 0, note)


def _watched(
    cluster: Cluster, secs: float, slow: ClusterPop | None = None, stop_secs: float = 1.0
) -> tuple[int, int]:
    """Return how often POPs that run were called dead, and suspected, in so many seconds."""
    marks = {pop.name: len(pop.proxy.events) for pop in cluster}
    end = time.monotonic() + secs
    while time.monotonic() < end:
        if slow is None:
            PAUSE.wait(1.0)
            continue
        slow.pause()
        PAUSE.wait(stop_secs)
        slow.resume()
        PAUSE.wait(1.0 if stop_secs < 5 else 5.0)
    is_long = slow is not None and stop_secs > 5
    spared = {slow.name} if slow is not None and is_long else set()
    lines = [line for pop in cluster for line in pop.proxy.events[marks[pop.name] :]]
    return _about(lines, "member_dead", spared), _about(lines, "member_suspected", spared)


def _about(lines: Iterable[Event], event: str, spared: set[str]) -> int:
    return sum(line["event"] == event and line["node"] not in spared for line in lines)
