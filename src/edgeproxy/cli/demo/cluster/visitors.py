"""Clients of one POP: each is predicted as the POP must decide, and really connects."""

from __future__ import annotations

from edgeproxy.cli.demo.clients import Client
from edgeproxy.cli.demo.cluster.pop import Pop
from edgeproxy.cli.demo.connection import Connection
from edgeproxy.cli.demo.environment import NODES
from edgeproxy.cli.demo.expected import expect, unbroken
from edgeproxy.cli.demo.prediction import Predictor


class Visitors:
    """The clients of one POP; their connections stay open.

    Attributes:
        reached: The backend that answered each client last.
    """

    def __init__(self, pop: Pop, variables: dict[str, str]) -> None:
        """`variables` are all EDGEPROXY_* variables of the POP."""
        self._pop = pop
        self._predictor = Predictor(variables)
        self._open: list[tuple[Connection, str]] = []
        self.reached: dict[Client, str] = {}

    def connect(self, client: Client) -> str:
        """Return the backend that a client reaches: one of its region, the one that is decided."""
        who = f"{client.ip} ({client}) at {self._pop.name}"
        self._predictor.reload()
        decision = self._predictor.connect(client.ip)
        with unbroken(f"{who} is served"):
            connection = Connection(client.ip, self._pop.listen)
            self._open.append((connection, ""))
            reached = connection.ask()
        self._open[-1] = (connection, reached)
        expect(f"{who} reached the backend that the decision names", decision.backend, reached)
        expect(f"{who} is served in its region", client.region, NODES.get(reached))
        self.reached[client] = reached
        return reached

    def ask_all(self) -> int:
        """Use every open connection again; return how many there are."""
        claim = f"connections opened before stay at {self._pop.name}"
        with unbroken(claim):
            for connection, backend_id in self._open:
                expect(claim, backend_id, connection.ask())
        return len(self._open)

    def hang_up(self) -> None:
        """Close all connections."""
        for connection, _ in self._open:
            connection.close()
        self._open.clear()
