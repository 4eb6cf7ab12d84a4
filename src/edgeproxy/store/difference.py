"""Says in a few words what differs between two contents of the routing database.

For the log: which backends were added, removed or changed, and from which value to which. What it
says is bounded by `MAX_NAMED`, however much differs; the numbers are always those of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.store.snapshot import Snapshot

MAX_NAMED = 10
"""How many backends or server names one field names before it only counts them."""

_COLUMNS = tuple(field.name for field in dataclasses.fields(Backend) if field.name != "id")


def difference(before: Snapshot, after: Snapshot, rest: Pause = no_pause) -> dict[str, str]:
    """Return what differs, as fields of a log line; no field for what does not.

    `added`, `removed` and `changed` are about backends, `routes` is about server names.
    """
    added, removed, changed, routes = _Few(), _Few(), _Few(), _Few()
    earlier = {each.id: each for each in paced(before.backends, rest)}
    for each in paced(after.backends, rest):
        old = earlier.pop(each.id, None)
        if old is None:
            added.add(each.id)
        elif old != each:
            changed.add(_changes, old, each)
    for backend_id in paced(list(earlier), rest):
        removed.add(backend_id)
        del earlier[backend_id]  # a dict freed at once would hold the interpreter for long
    for name in paced({**before.routes, **after.routes}, rest):
        if before.routes.get(name) != after.routes.get(name):
            routes.add(_route, name, before, after)
    fields = {"added": added, "removed": removed, "changed": changed, "routes": routes}
    return {name: few.text() for name, few in fields.items() if few.count}


class _Few:
    """Keeps the first texts, and counts all."""

    def __init__(self) -> None:
        self.count = 0
        self._texts: list[str] = []

    def add(self, what: str | Callable[..., str], *arguments: object) -> None:
        """Count a text, or what makes it: it is made only if it is kept."""
        self.count += 1
        if self.count <= MAX_NAMED:
            self._texts.append(what if isinstance(what, str) else what(*arguments))

    def text(self) -> str:
        """Return the texts, and how many there are beside them."""
        rest = [f"and {self.count - MAX_NAMED} more"] if self.count > MAX_NAMED else []
        return ", ".join([*self._texts, *rest])


def _changes(before: Backend, after: Backend) -> str:
    """Return the id of a backend and each column that changed: `sa-node-1 healthy 1→0`."""
    return " ".join([after.id, *_columns(before, after)])


def _columns(before: Backend, after: Backend) -> Iterator[str]:
    for name in _COLUMNS:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"{name} {_shown(old)}→{_shown(new)}"


def _route(name: str, before: Snapshot, after: Snapshot) -> str:
    return f"{name} {_shown(before.routes.get(name))}→{_shown(after.routes.get(name))}"


def _shown(value: object) -> str:
    """Return a value as the database shows it."""
    if value is None:
        return "-"
    return str(int(value)) if isinstance(value, bool) else str(value)
