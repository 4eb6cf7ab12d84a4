"""What replication costs: large tables, single edits, doing nothing, and the clients beside it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from functools import partial

from bench.replication.edits import LEAST_MS, MOST_MS, SETTLE_SECS, InForce
from bench.replication.faults import begun
from bench.replication.figures import Bench, percentile, show
from tests.cluster_pops import CLIENT_PORT, Cluster, ClusterPop, processor_secs, resident_bytes
from tests.waiting import PAUSE, wait_until

ROWS = (10_000, 100_000)
ROWS_AT_ONCE = 5_000
MOST_MS_OF_EDIT = {10_000: 20.0, 100_000: 150.0}
EDITS = 40
BETWEEN_EDITS_SECS = 0.5
IDLE_SECS = 60.0
LATENCY_SECS = 10.0
PATIENCE_SECS = 300.0


def fill(pop: ClusterPop, rows: int) -> None:
    """Add so many rows that no client is sent to."""
    for first in range(0, rows, ROWS_AT_ONCE):
        last = min(rows, first + ROWS_AT_ONCE)
        pop.add(*(f"row-{number:06}" for number in range(first, last)), weight=0)


def measure_tables(bench: Bench) -> None:
    """Section `tables`."""
    for rows in ROWS:
        with begun(bench.folder / f"tables-{rows}", bench) as cluster:
            cluster.spread(LEAST_MS, MOST_MS)
            *old, new = cluster
            names = [pop.name for pop in old]
            cluster.start(*names)
            began_at = time.monotonic()
            fill(old[0], rows)
            old[0].add("last")
            cluster.wait_until_equal(*names, secs=PATIENCE_SECS)
            show(f"{rows} rows, filled at one POP and at all", time.monotonic() - began_at, "s")
            began_at = time.monotonic()
            new.begin()
            # Nothing is asked meanwhile: it would take the processor from what is measured.
            wait_until(partial(_has_in_force, new, rows + 1), "all in force", PATIENCE_SECS)
            served = new.proxy.wait_for("replication")["at"] - began_at
            in_force = new.proxy.seen("table_published")[-1]["at"] - began_at
            cluster.wait_until_equal(*names, new)
            note = f"its agent serves after {served:.2f} s"
            most = 5 if rows == ROWS[0] else None
            show(f"{rows} rows in force at a new POP", in_force, "s", most, note)
            cluster.wait_until_connected()
            _cost_of_edits(bench, cluster, rows)


def _has_in_force(pop: ClusterPop, rows: int) -> bool:
    return any(line["backends"] == str(rows) for line in pop.proxy.seen("table_published"))


def _cost_of_edits(bench: Bench, cluster: Cluster, rows: int) -> None:
    writer, *others = cluster
    PAUSE.wait(SETTLE_SECS)
    idle = _spent(cluster, bench.many(EDITS) * BETWEEN_EDITS_SECS, edits=0)
    spent = _spent(cluster, 0, edits=bench.many(EDITS))
    each_ms = {name: (spent[name] - idle[name]) / bench.many(EDITS) * 1000 for name in cluster.pops}
    most = MOST_MS_OF_EDIT[rows]
    show(f"agent's CPU for an edit at its POP, {rows} rows", each_ms[writer.name], "ms", most)
    worst = max(each_ms[pop.name] for pop in others)
    show(f"agent's CPU for an edit at another POP, {rows} rows", worst, "ms", most)
    most_memory = max(resident_bytes(pop.agent_pid) for pop in cluster)
    show(f"agent's memory, {rows} rows", most_memory / 1e6, "MB")


def _spent(cluster: Cluster, secs: float, edits: int) -> dict[str, float]:
    """Return the processor time of each agent while so many edits are made, or nothing."""
    writer = next(iter(cluster))
    before = {pop.name: processor_secs(pop.agent_pid) for pop in cluster}
    for number in range(edits):
        writer.set_weight("last", number + 2)
        PAUSE.wait(BETWEEN_EDITS_SECS)
    PAUSE.wait(secs)
    return {pop.name: processor_secs(pop.agent_pid) - before[pop.name] for pop in cluster}


def measure_idle(bench: Bench) -> None:
    """Section `idle`."""
    with begun(bench.folder / "idle", bench) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        cluster.start()
        next(iter(cluster)).add(*(f"row-{number}" for number in range(100)))
        cluster.wait_until_equal()
        PAUSE.wait(SETTLE_SECS * 3)
        secs = bench.many(int(IDLE_SECS))
        before, at = cluster.underlay.counts(), time.monotonic()
        spent = _spent(cluster, secs, edits=0)
        after, taken = cluster.underlay.counts(), time.monotonic() - at
        sent = dict.fromkeys(cluster.pops, 0)
        for (source, _), traffic in after.items():
            sent[source] += traffic.bytes - before[source, _].bytes
        show(
            "bytes sent by a POP in a second, IP headers included",
            max(sent.values()) / taken,
            "B",
            1000,
        )
        show("agent's CPU, worst of all", max(spent.values()) / taken * 100, "%", 2)
        show(
            "agent's memory, worst of all",
            max(resident_bytes(pop.agent_pid) for pop in cluster) / 1e6,
            "MB",
            60,
        )


def measure_latency(bench: Bench) -> None:
    """Section `latency`."""
    with begun(bench.folder / "latency", bench) as cluster:
        cluster.spread(LEAST_MS, MOST_MS)
        *old, new = cluster
        names = [pop.name for pop in old]
        with closing(cluster.backend_at(new.name)) as backend:
            cluster.underlay.partition(names, [new.name])
            for pop in (*old, new):
                pop.begin()
            for pop in (*old, new):
                pop.proxy.wait_for("replication")
            fill(old[0], ROWS[0])
            new.add(backend.id, wg_ip=backend.host, port=backend.port)
            new.wait_for(**{backend.id: 1})
            cluster.wait_until_equal(*names, secs=PATIENCE_SECS)
            over = threading.Event()
            threading.Timer(LATENCY_SECS, over.set).start()
            without = new.host.run(partial(_latencies, over))
            over = threading.Event()
            waiting = InForce(new)

            def is_synced() -> bool:
                return waiting.since(f"row-{ROWS[0] - 1:06}", 0) is not None

            def watch() -> None:
                cluster.underlay.heal()
                try:
                    wait_until(is_synced, "the full sync", PATIENCE_SECS)
                finally:
                    over.set()

            thread = threading.Thread(target=watch)
            thread.start()
            beside = new.host.run(partial(_latencies, over))
            thread.join()
            for what, times in (("without a sync", without), ("beside a full sync", beside)):
                note = f"p50 {percentile(times, 0.5) * 1000:.2f}, worst {max(times) * 1000:.2f} ms"
                show(
                    f"connect and echo, p99, {what}",
                    percentile(times, 0.99) * 1000,
                    "ms",
                    None,
                    f"{note}, n = {len(times)}",
                )


def _latencies(over: threading.Event) -> list[float]:
    """Connect, ask and be answered until it is over; return how long each took."""
    times = []
    while not over.wait(0.002):
        at = time.perf_counter()
        with socket.create_connection(("127.0.0.1", CLIENT_PORT), 20) as client:
            client.sendall(b"echo\n")
            said = b""
            while not said.endswith(b"echo\n"):
                part = client.recv(4096)
                assert part, "the proxy has closed a connection"
                said += part
        times.append(time.perf_counter() - at)
    return times
