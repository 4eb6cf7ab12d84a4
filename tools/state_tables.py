"""Writes the state tables of the code into ARCHITECTURE.md: `python -m tools.state_tables`.

Each table stands between two comments that name it. `tests/test_docs.py` fails when one is not
what the code says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeproxy.engine import session_states
from edgeproxy.process import lifecycle

DOCUMENT = Path(__file__).parent.parent / "ARCHITECTURE.md"


def with_tables(text: str) -> str:
    """Return a document with its tables as the code has them now."""
    for name, lines in (("process", process_table()), ("session", session_table())):
        before, begin, rest = text.partition(f"<!-- {name} states -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} states -->")
        text = before + begin + "".join(f"{line}\n" for line in lines) + end + after
    return text


def process_table() -> list[str]:
    """Return the phases of the process; a crash leads from each to CRASHED."""
    rows = [
        (phase.name, event.name, following.name)
        for (phase, event), following in lifecycle.TRANSITIONS.items()
        if event is not lifecycle.Event.CRASH
    ]
    return _table(("phase", "event", "next"), rows)


def session_table() -> list[str]:
    """Return the states of a session, and what the gate is told."""
    rows = [
        (row.state, row.event, row.next_state, f"`{row.told}`" if row.told else "-")
        for row in session_states.TRANSITIONS
    ]
    return _table(("state", "event", "next", "told to the gate"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
