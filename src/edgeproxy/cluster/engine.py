"""What carries edits between POPs, as the bridge sees it.

An engine owns its state. It merges concurrent edits of one row by groups of columns, and it takes
edits while other POPs cannot be reached. What it has acknowledged it never loses, except under a
later edit of the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from edgeproxy.core.cluster.rows import Edit, Key, Values
from edgeproxy.errors import EdgeProxyError


class EngineError(EdgeProxyError):
    """The engine cannot do this now; nothing has changed."""


class LostPositionError(EngineError):
    """The state is not the one, or not as far, as when it gave this position."""


class Changes(NamedTuple):
    """What has changed in an engine.

    Attributes:
        position: Where to go on from the next time; it means something to this engine alone.
        rows: The merged rows that may have changed; None for one that is gone.
        has_more: Whether more have changed than these: they come after this position.
    """

    position: str
    rows: Mapping[Key, Values | None]
    has_more: bool = False


class Engine(Protocol):
    """The engine of one POP. For the thread of the bridge."""

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        """Store edits of this POP durably, in one transaction, together with a token.

        They were made at `at_ms` (Unix milliseconds). Raises EngineError, also if the token of the
        last commit is another than `after`: what a dead bridge has sent may still be on its way,
        and must not arrive after what its successor commits.
        """

    def last_token(self) -> str:
        """Return the token of the last commit, "" before the first. Raises EngineError."""

    def changes(self, after: str) -> Changes:
        """Return what has changed since a position; "" is the beginning.

        Raises LostPositionError for a position of a state that was lost or restored, for which no
        difference can be told; and EngineError.
        """

    def is_ready(self) -> bool:
        """Return whether all that another POP has is known here, or that there is none."""


class RunningEngine(Engine, Protocol):
    """An engine with its connections to other POPs. What is not of `Engine` is for the event loop.

    Its state can be read and edits can be committed before it has started.
    """

    async def start(self, wake: Callable[[], object]) -> None:
        """Begin to exchange changes; call `wake` when something has come. Raises EngineError."""

    async def stop(self) -> None:
        """Tell the other POPs that this one leaves for now, and close everything."""

    def status(self) -> Mapping[str, Any]:
        """Return the members of the cluster, how far behind each is, and counts, for JSON."""

    async def command(self, name: str, arguments: Mapping[str, Any]) -> object:
        """Do what an operator asks, and return what came of it. Raises EngineError."""
