"""Rules that can be taken away, one at a time: some seed has to find the lack of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from edgeproxy.cluster.bridge.bridge import Bridge
from edgeproxy.cluster.bridge.routing_file import RoutingFile
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.core.cluster import capture, own_copy, store
from edgeproxy.core.cluster.cells import Cell, RowCells, beats
from edgeproxy.core.cluster.own_copy import OwnCopy
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.swim.membership import Membership
from edgeproxy.store.sqlite.edit_watch import stamp_of
from tests.sim.patches import Place, replaced
from tests.sim.world import Result, run

Patches = list[Place]


class Rule(NamedTuple):
    """A rule, and what takes it away.

    Attributes:
        patches: Module or class, name, and what is there instead.
        seeds: Among so many seeds of the kind, one finds it.
        kind: That of the seeds.
    """

    patches: Patches
    seeds: int
    kind: str = "replicas"


def _always(value: object) -> Callable[..., object]:
    return lambda *_args, **_kwargs: value


def _old_stamps() -> Patches:
    """Write anew what a clone does not know, but under the stamp that it had."""
    clone, stamp = OwnCopy.clone, OwnCopy._stamp

    def cloned(copy: Any, vector: Any, *rest: Any) -> Any:
        copy._old = {}
        for cell in copy._store.beyond(vector):
            copy._old[cell.key] = max(cell.stamp, copy._old.get(cell.key, 0))
        try:
            return clone(copy, vector, *rest)
        finally:
            copy._old = None

    def stamped(copy: Any, changes: Iterable[Any], now_ms: int) -> int:
        changes = list(changes)
        old = getattr(copy, "_old", None) or {}
        key = changes[0].key
        return old[key] if key in old else stamp(copy, changes, now_ms)

    return [(OwnCopy, "clone", cloned), (OwnCopy, "_stamp", stamped)]


def _unwary_drop() -> Patches:
    adopt = OwnCopy.adopt

    def adopted(copy: Any, generation: Any) -> None:
        before = dict(copy._store.generation())
        adopt(copy, generation)
        with copy._store.transaction():
            copy._store.set_generation(before)

    return [(OwnCopy, "adopt", adopted)]


def _is_same_after_crash() -> Patches:
    begin = OwnCopy.__init__

    def begun(copy: Any, disk: Any, new_origin: Any) -> None:
        if disk.facts().origin:
            with disk.transaction():
                disk.set_facts(disk.facts()._replace(is_stopped=True))
        begin(copy, disk, new_origin)

    return [(OwnCopy, "__init__", begun)]


def _forgotten_origins() -> Patches:
    begin = OwnCopy._begin

    def begun(copy: Any) -> None:
        begin(copy)
        copy._store.set_facts(copy._store.facts()._replace(earlier=()))

    return [(OwnCopy, "_begin", begun)]


def _all_cells_count(row: RowCells, cells: Iterable[Cell]) -> RowCells:
    result = dict(row)
    for cell in cells:
        if beats(cell, result.get(cell.group)):
            result[cell.group] = cell
    return result


def _no_greeting() -> Patches:
    tick = Replica.tick
    return [
        (Replica, "joined", lambda replica, peer, _: replica._peers.__setitem__(peer, {}) or []),
        (Replica, "tick", lambda *args: [each for each in tick(*args) if _asks(each.message)]),
    ]


def _asks(message: object) -> bool:
    return getattr(message, "vector", None) is not None


def _recover_without(lost: str) -> Patches:
    """Let a new bridge forget what an earlier one was doing."""
    recover = Bridge._recover

    def recovered(bridge: Any) -> None:
        with bridge._shadow.transaction():
            setattr(bridge._shadow, lost, None)
        recover(bridge)

    return [(Bridge, "_recover", recovered)]


def _unmoved() -> Patches:
    write = RoutingFile.write

    def written(file: Any, *args: Any) -> Any:
        file._stamp, file._data_version = stamp_of(file.path), file._version()
        return write(file, *args)

    return [(RoutingFile, "write", written)]


RULES: Mapping[str, Rule] = {
    "generation id": Rule([(Replica, "_is_foreign", _always(False))], 400),
    "next of its origin": Rule(
        [
            (Replica, "_is_next", _always(True)),
            (Replica, "_is_of_another_past", _always(False)),
        ],
        50,
    ),
    "seen before adopting": Rule([(Replica, "_may_adopt", _always(True))], 200),
    "new origin after a clone": Rule([(OwnCopy, "_begin_after_clone", _always(None))], 200),
    "new origin after a crash": Rule(_is_same_after_crash(), 2_000),
    "own after a clone": Rule(_forgotten_origins(), 4_000),
    "write anew": Rule([(OwnCopy, "_unknown", _always({}))], 200),
    "new stamp": Rule(_old_stamps(), 400),
    "say what is dropped": Rule(_unwary_drop(), 200),
    "clock follows": Rule([(OwnCopy, "_follow", _always(None))], 4_000),
    "greetings": Rule(_no_greeting(), 50),
    "cells of earlier lives": Rule(
        [(own_copy, "merged", _all_cells_count), (store, "merged", _all_cells_count)], 1_000
    ),
    "refutation": Rule([(Membership, "_hear_about_me", _always(None))], 50, "members"),
    "outbox": Rule(_recover_without("outbox"), 400, "bridges"),
    "pending": Rule(_recover_without("pending"), 400, "bridges"),
    "moved": Rule(_unmoved(), 400, "bridges"),
    "earlier marker": Rule([(Shadow, "knows", _always(False))], 400, "bridges"),
    "brake": Rule([(capture, "_are_too_many", _always(False))], 100, "bridges"),
}


@contextmanager
def without(name: str) -> Iterator[str]:
    """Take a rule away, if one is named; give the kind of seeds that find it."""
    if not name:
        yield ""
        return
    with replaced(RULES[name].patches):
        yield RULES[name].kind


def run_without(rule: str, kind: str, seed: int) -> Result:
    """Run the history of a seed, without a rule if one is named."""
    with without(rule) as kind_of_rule:
        return run(seed, kind or kind_of_rule)
