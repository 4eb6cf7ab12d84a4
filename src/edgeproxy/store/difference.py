"""Says in a few words what differs between two contents of the routing database.

For the log: which backends were added, removed or changed, and from which value to which. What it
says is bounded by `MAX_NAMED`, however much differs; the numbers are always those of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.store.snapshot import Snapshot

MAX_NAMED = 10
"""How many backends or server names one field names before it only counts them."""

_COLUMNS = tuple(field.name for field in fields(Backend) if field.name != "id")


def difference(before: Snapshot, after: Snapshot, rest: Pause = no_pause) -> dict[str, str]:
    """Return what differs, as fields of a log line; no field for what does not.

    `added`, `removed` and `changed` are about backends, `routes` is about server names.
    """
    earlier = {each.id: each for each in paced(before.backends, rest)}
    added: list[str] = []
    changed: list[tuple[Backend, Backend]] = []
    for each in paced(after.backends, rest):
        old = earlier.pop(each.id, None)
        if old is None:
            added.append(each.id)
        elif old != each:
            changed.append((old, each))
    names = [
        name
        for name in paced({**before.routes, **after.routes}, rest)
        if before.routes.get(name) != after.routes.get(name)
    ]
    texts = {
        "added": _few(added, len(added)),
        "removed": _few(earlier, len(earlier)),
        "changed": _few((_changes(*pair) for pair in changed), len(changed)),
        "routes": _few((_route(name, before, after) for name in names), len(names)),
    }
    return {name: text for name, text in texts.items() if text}


def _few(texts: Iterable[str], count: int) -> str:
    """Return the first texts, and how many there are beside them."""
    first: Sequence[str] = [text for text, _ in zip(texts, range(MAX_NAMED), strict=False)]
    rest = [f"and {count - MAX_NAMED} more"] if count > MAX_NAMED else []
    return ", ".join([*first, *rest])


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
