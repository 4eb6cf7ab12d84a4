"""The steps of the demo. Each one acts, observes the result, and prints what it observed.

A step raises UnmetError if the result is not what it claims. Two sources say what must happen:
the decision of the product's own code for the same clients (`cli/demo/prediction`), and the region
of each client's country (`cli/demo/clients`). Connections stay open from step to step, so loads
and decisions are the same in every run.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping

from edgeproxy.cli.demo.backend import LINE_BYTES
from edgeproxy.cli.demo.clients import (
    AMERICAN,
    BRAZILIAN,
    CLIENTS,
    GERMAN,
    Client,
    check_addresses,
    countries,
)
from edgeproxy.cli.demo.commands import Places, commands_to_try
from edgeproxy.cli.demo.connection import Connection, Transfer
from edgeproxy.cli.demo.environment import LOOPBACK, NODES, Environment, typed_command
from edgeproxy.cli.demo.expected import UnmetError, eventually, expect, unbroken
from edgeproxy.cli.demo.output import Output
from edgeproxy.cli.demo.prediction import Predictor, why, why_not
from edgeproxy.cli.demo.signals import Interruption, StopSignals
from edgeproxy.cli.table import text_table
from edgeproxy.core.admission.explanation import Decision

AS_DECIDED = "every client reached the backend that the decision names"

TRANSFER_LINES = 300_000
FIRST_PART_BYTES = 1 << 18


class Steps:
    """The demo, step by step.

    Attributes:
        reached: The backend that answered each client last.
        listen: Where the proxy listens.
    """

    def __init__(self, environment: Environment, output: Output) -> None:
        self._environment = environment
        self._output = output
        self._open: list[Connection] = []
        self.reached: dict[Client, str] = {}
        self.listen: tuple[str, int] = (LOOPBACK, 0)

    # -- the steps ---------------------------------------------------------------------

    def start(self) -> None:
        """Start everything. Raises EdgeProxyError where clients cannot have their addresses."""
        check_addresses()
        self._environment.open_database()
        regions = ", ".join(dict.fromkeys(NODES.values()))
        self._output.met(f"{len(NODES)} backends run, each a process of its own, in {regions}")
        self._environment.locate(countries())
        ready = self._environment.start()
        host, _, port = ready["listen"].rpartition(":")
        self.listen = (host, int(port))
        self._predictor = Predictor(self._environment.variables)
        expect("the proxy knows all backends", str(len(NODES)), ready["backends"])
        shown = " ".join(f"{key}={ready[key]}" for key in ("listen", "region", "engine"))
        self._output.met(f"`edgeproxy serve` is ready: {shown}")

    def geography(self) -> None:
        """Connect every client: each must reach the backend that the decision names."""
        self._output.heading("1. Each client gets a backend near it")
        decisions = {}
        for client in CLIENTS:
            decisions[client] = self._predictor.connect(client.ip)
            self._connect(client)
        rows = [
            (client.ip, client, self.reached[client], _score(decision), why(decision))
            for client, decision in decisions.items()
        ]
        self._output.note(text_table(("CLIENT", "COUNTRY", "BACKEND", "SCORE", "WHY"), rows))
        self._expect_reached(decisions)
        self._output.met(AS_DECIDED)

    def disable(self) -> None:
        """Disable a node with the CLI: its clients must move, all others must stay."""
        before = dict(self.reached)
        node = before[BRAZILIAN]
        bound = [client.ip for client in CLIENTS if before[client] == node]
        theirs = [connection for connection in self._open if connection.client_ip in bound]
        self._output.heading("2. A node is disabled: its clients move, the others stay")
        self._output.command(f"export EDGEPROXY_DB_PATH={self._environment.database}")
        self._output.command(f"{typed_command()} node disable {node}")
        self._output.aside(self._environment.proxy.command("node", "disable", node))
        began = time.monotonic()
        self._predictor.reload()
        decisions = {BRAZILIAN: self._predictor.connect(BRAZILIAN.ip)}
        eventually(f"new connections avoid {node}", lambda: self._avoids(BRAZILIAN, node))
        secs = time.monotonic() - began
        for client in CLIENTS:
            if client is not BRAZILIAN:
                decisions[client] = self._predictor.connect(client.ip)
                self._connect(client)
        rows = [
            (
                client.ip,
                client,
                before[client],
                self.reached[client],
                why_not(decision, before[client]),
            )
            for client, decision in decisions.items()
        ]
        self._output.note(text_table(("CLIENT", "COUNTRY", "BEFORE", "NOW", "WHY"), rows))
        self._expect_reached(decisions)
        moved = [client.ip for client in CLIENTS if self.reached[client] != before[client]]
        expect(f"only the clients of {node} moved", bound, moved)
        self._output.met(f"{len(moved)} clients moved, {secs:.2f} s after the command")
        claim = f"connections opened before stay with {node}"
        with unbroken(claim):
            for connection in theirs:
                expect(claim, node, connection.ask())
        self._output.met(f"their {len(theirs)} earlier connections stayed open")

    def failover(self) -> None:
        """Kill a backend's process: its client must be served by another one."""
        self._output.heading("3. A backend dies: the next connection fails over")
        dead = self.reached[AMERICAN]
        process = self._environment.backends[dead]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._output.command(f"kill -KILL {process.pid}  # {dead}")
        decision = self._predictor.connect_to_dead(AMERICAN.ip)
        began = time.monotonic()
        self._connect(AMERICAN)
        secs = time.monotonic() - began
        row = (AMERICAN.ip, AMERICAN, dead, self.reached[AMERICAN], why_not(decision, dead))
        self._output.note(text_table(("CLIENT", "COUNTRY", "BEFORE", "NOW", "WHY"), [row]))
        self._expect_reached({AMERICAN: decision})
        claim = f"the proxy noticed that {dead} is dead"
        expect(claim, dead, self._environment.proxy.logged("dial_failed", claim)["backend"])
        self._output.met(f"served within the same connection, {secs * 1000:.0f} ms after its start")

    def drain(self) -> None:
        """Ask the proxy to stop: open transfers must finish, new clients are refused."""
        self._output.heading("4. SIGTERM: open transfers finish, new clients are refused")
        self.hang_up()
        transfers = [self._begin_transfer(client) for client in (BRAZILIAN, AMERICAN, GERMAN)]
        size = TRANSFER_LINES * LINE_BYTES
        parts = ", ".join(f"{transfer.received_bytes / size:.1%}" for transfer in transfers)
        self._output.note(f"{len(transfers)} downloads of {size / 1e6:.1f} MB are at {parts}")
        self._output.command(f"kill -TERM {self._environment.proxy.process.pid}  # the proxy")
        self._environment.proxy.process.terminate()
        draining = self._environment.proxy.logged("draining", "the proxy stops accepting")
        self._output.aside(f"draining connections={draining['connections']}")
        eventually("a new connection is refused", self._is_refused)
        expect("the proxy waits for the transfers", None, self._environment.proxy.process.poll())
        self._output.met("a new connection is refused")
        for transfer in transfers:
            self._finish_transfer(transfer, size)
        self._output.met(
            f"{len(transfers)} downloads finished: {len(transfers) * size / 1e6:.1f} MB, "
            "SHA-256 as expected"
        )
        stopped = self._environment.proxy.logged("stopped", "the proxy stops")
        names = ("refused", "failovers", "cut", "still_active")
        books = " ".join(f"{name}={stopped[name]}" for name in names)
        expect("the proxy's counts are right", "refused=0 failovers=1 cut=0 still_active=0", books)
        expect(
            "the proxy exits with 0",
            0,
            eventually("the proxy ends", self._environment.proxy.process.poll),
        )
        self._output.met(f"the proxy exited with 0: {books}")

    def keep(self, signals: StopSignals) -> None:
        """Keep everything running until a signal, then drain the proxy.

        A second signal is raised to the caller, which then ends everything at once.
        """
        self.hang_up()
        proxy = self._environment.proxy
        host, port = self.listen
        places = Places(
            client=f"{host}:{port}",
            api=proxy.logged("api", "the API is served")["listen"],
            metrics=proxy.logged("metrics", "metrics are served")["listen"],
            log=str(proxy.log),
        )
        self._output.heading("It all keeps running. In another terminal:")
        self._output.note(commands_to_try(typed_command(), places, self._environment.variables))
        try:
            self._output.note("Ctrl+C stops it; open connections may finish, unless pressed twice.")
            code = proxy.process.wait()
        except Interruption:
            proxy.process.terminate()
            with signals.allowed():
                code = proxy.process.wait()
        else:
            raise UnmetError("the proxy keeps running", "no end", f"exit code {code}")
        expect("the proxy exits with 0", 0, code)
        self._output.met("the proxy finished its open connections and exited with 0")

    def hang_up(self) -> None:
        """Close all connections of the steps so far."""
        for connection in self._open:
            connection.close()
        self._open.clear()

    # -- parts of the steps -------------------------------------------------------------------

    def _connect(self, client: Client) -> None:
        """Open a connection, note which backend answers, and keep it open."""
        with unbroken(f"{client.ip} ({client}) is served"):
            connection = Connection(client.ip, self.listen)
            self._open.append(connection)
            self.reached[client] = connection.ask()

    def _avoids(self, client: Client, backend_id: str) -> bool | None:
        """Connect anew; keep that connection only if it reached another backend."""
        self._connect(client)
        if self.reached[client] != backend_id:
            return True
        self._open.pop().close()
        return None

    def _expect_reached(self, decisions: Mapping[Client, Decision]) -> None:
        """Compare what clients reached with what was decided and with plain geography."""
        for client, decision in decisions.items():
            reached, who = self.reached[client], f"{client.ip} ({client})"
            expect(
                f"{who} is located there",
                client.country,
                decision.origin.country or "",
            )
            expect(f"{who} reached the backend that the decision names", decision.backend, reached)
            expect(f"{who} is served in its region", client.region, NODES.get(reached))

    def _begin_transfer(self, client: Client) -> Transfer:
        """Start a long download and read its beginning."""
        claim = f"{client.ip} ({client}) gets its download"
        with unbroken(claim):
            connection = Connection(client.ip, self.listen)
            self._open.append(connection)
            transfer = Transfer(connection, TRANSFER_LINES)
            while transfer.received_bytes < FIRST_PART_BYTES and transfer.read_part():
                pass
        expect(claim, self.reached[client], transfer.backend)
        return transfer

    def _finish_transfer(self, transfer: Transfer, size: int) -> None:
        claim = f"the download from {transfer.backend} is complete"
        with unbroken(claim):
            while transfer.read_part():
                pass
        transfer.close()
        expect(claim, f"{size} bytes", f"{transfer.received_bytes} bytes")
        expect(f"{claim}, by SHA-256", transfer.expected_digest(), transfer.digest())

    def _is_refused(self) -> bool | None:
        try:
            Connection(LOOPBACK, self.listen).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return None


def _score(decision: Decision) -> str:
    score = decision.candidates[0].score
    return "-" if score is None else f"{score:6.2f}"
