"""The metrics of replication, read from what the agent of the cluster said last.

They are on the page only where replication is on. Counts begin anew with every agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgeproxy.control.observe.metric_table import Kind, Metric, Sample
from edgeproxy.control.observe.status_snapshot import StatusSnapshot

MEMBER_STATES = ("alive", "suspect", "dead", "left")

Agent = Mapping[str, Any]


def _of_agent(
    name: str,
    kind: Kind,
    text: str,
    read: Callable[[Agent], Iterable[Sample]],
    *labels: str,
    always: bool = False,
) -> Metric[StatusSnapshot]:
    """Return a metric that is read from what the agent said; `always` also if it said nothing."""

    def read_now(now: StatusSnapshot) -> Iterable[Sample] | None:
        agent = now.surroundings.cluster
        if agent is None or ("node_id" not in agent and not always):
            return None
        return read(agent)

    return Metric(name, kind, text, labels, read_now)


def _value(read: Callable[[Agent], float]) -> Callable[[Agent], Iterable[Sample]]:
    return lambda agent: (((), read(agent)),)


def _members(agent: Agent) -> Iterator[Sample]:
    counts = Counter(member["state"] for member in agent["members"])
    for state in MEMBER_STATES:
        yield (state,), counts[state]


def _of_members(name: str, factor: float = 1.0) -> Callable[[Agent], Iterable[Sample]]:
    """Return how to read a value of each member that has one."""
    return lambda agent: [
        ((member["node_id"],), member[name] * factor)
        for member in agent["members"]
        if member[name] is not None
    ]


def _missing(agent: Agent) -> Iterator[Sample]:
    for member in agent["members"]:
        for where in ("here", "there"):
            if (count := member[f"missing_{where}"]) is not None:
                yield (member["node_id"], where), count


def _counts(name: str) -> Callable[[Agent], Iterable[Sample]]:
    return lambda agent: [((key,), n) for key, n in sorted(agent.get(name, {}).items())]


def _bridge(name: str) -> Callable[[Agent], Iterable[Sample]]:
    return _value(lambda agent: agent["bridge"][name])


CLUSTER_METRICS: tuple[Metric[StatusSnapshot], ...] = (
    _of_agent(
        "edgeproxy_cluster_agent_up",
        Kind.GAUGE,
        "Whether the agent of the cluster answers.",
        _value(lambda agent: "node_id" in agent),
        always=True,
    ),
    _of_agent(
        "edgeproxy_cluster_agent_restarts",
        Kind.COUNTER,
        "Agents started after one had ended.",
        _value(lambda agent: agent["agent_restarts"]),
        always=True,
    ),
    _of_agent(
        "edgeproxy_cluster_ready",
        Kind.GAUGE,
        "Whether all that another POP has is known here, or that there is none.",
        _value(lambda agent: agent["ready"]),
    ),
    _of_agent(
        "edgeproxy_cluster_stalled",
        Kind.GAUGE,
        "Whether edits cannot be carried between the routing database and the cluster.",
        _value(lambda agent: bool(agent["bridge"]["fault"])),
    ),
    _of_agent(
        "edgeproxy_cluster_members",
        Kind.GAUGE,
        "Other POPs, by what they are held to be.",
        _members,
        "state",
    ),
    _of_agent(
        "edgeproxy_cluster_peer_connected",
        Kind.GAUGE,
        "Whether there is a session with another POP.",
        _of_members("is_connected"),
        "pop",
    ),
    _of_agent(
        "edgeproxy_cluster_peer_rtt_seconds",
        Kind.GAUGE,
        "Round-trip time to another POP.",
        _of_members("rtt_ms", 0.001),
        "pop",
    ),
    _of_agent(
        "edgeproxy_cluster_peer_clock_offset_seconds",
        Kind.GAUGE,
        "How far the clock of another POP is ahead.",
        _of_members("clock_offset_ms", 0.001),
        "pop",
    ),
    _of_agent(
        "edgeproxy_cluster_missing_transactions",
        Kind.GAUGE,
        "Transactions that one of two POPs has and the other lacks, as known here.",
        _missing,
        "pop",
        "where",
    ),
    _of_agent(
        "edgeproxy_cluster_edits",
        Kind.COUNTER,
        "Edits taken from the routing database.",
        _bridge("edits"),
    ),
    _of_agent(
        "edgeproxy_cluster_rows_written",
        Kind.COUNTER,
        "Rows written to the routing database.",
        _bridge("rows"),
    ),
    _of_agent(
        "edgeproxy_cluster_rows_restored",
        Kind.COUNTER,
        "Rows that vanished at once and were restored.",
        _bridge("rows_braked"),
    ),
    _of_agent(
        "edgeproxy_cluster_rows_refused",
        Kind.GAUGE,
        "Rows that the tables of the routing database do not take.",
        _bridge("rows_refused"),
    ),
    _of_agent(
        "edgeproxy_cluster_events",
        Kind.COUNTER,
        "What has happened in the engine.",
        _counts("counters"),
        "event",
    ),
    _of_agent(
        "edgeproxy_cluster_refused",
        Kind.COUNTER,
        "Sessions that were refused.",
        _counts("refused"),
        "reason",
    ),
    _of_agent(
        "edgeproxy_cluster_gossip_dropped",
        Kind.COUNTER,
        "Datagrams that were dropped.",
        _counts("gossip_dropped"),
        "reason",
    ),
)
