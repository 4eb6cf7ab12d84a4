"""What a decision costs: the whole pipeline, for new and bound clients, few and many backends.

Also what a client costs whose backends are all dead (their dials fail) or down (their probes fail):
it is given ten of them, one after the other, and refused.

    ./task bench-decide            # a table of medians
    ./task bench-decide -- --json  # the same as JSON

Rounds over the variants alternate, so that drift of the machine hits all alike. Quoted are
medians over the rounds, in microseconds, and the ratio to 10 backends in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections import deque
from dataclasses import dataclass, field

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin

REGIONS = {"sa": ("BR", "AR"), "us": ("US", "CA"), "eu": ("DE", "FR"), "ap": ("JP", "AU")}
CLIENTS = 1000
HELD = 100
"""Connections open at any time."""


@dataclass
class Variant:
    """One case: so many backends, clients that are new or bound."""

    backends: int
    bound: bool
    decide_us: list[float] = field(default_factory=list)
    connection_us: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        places = [(region, country) for region, pair in REGIONS.items() for country in pair]
        origins = {
            f"10.0.{n >> 8}.{n & 255}": Origin("", places[n % 8][1], places[n % 8][0])
            for n in range(CLIENTS)
        }
        self.clients = list(origins)
        self.admission = Admission(
            AdmissionSettings(region="sa"),
            AffinitySettings(ttl_secs=1e9 if self.bound else 0),
            EjectionSettings(),
            origins.__getitem__,
        )
        self.admission.publish(
            [
                Backend(f"node-{n}", "myapp", places[n % 8][0], "10.0.0.1", 80, weight=1 + n % 3)
                for n in range(self.backends)
            ]
        )
        self.held: deque[Ticket] = deque()

    @property
    def kind(self) -> str:
        """What the clients of this case are."""
        return "bound" if self.bound else "new"

    def measure(self, calls: int) -> None:
        """Take one sample of `decide` alone and one of a whole connection's decisions."""
        clients = (self.clients * (calls // CLIENTS + 1))[:calls]
        decide, key_of = self.admission.decide, self.admission.access.key
        begun = time.perf_counter()
        for client in clients:
            decide((key_of(client), ""), client, 1.0)
        self.decide_us.append((time.perf_counter() - begun) / calls * 1e6)
        begun = time.perf_counter()
        for client in clients:
            self._connect(client)
        self.connection_us.append((time.perf_counter() - begun) / calls * 1e6)

    def _connect(self, client: str) -> None:
        """Admit a client, and let the one that came `HELD` clients ago leave."""
        ticket = self.admission.admit(client, "", 1.0)
        assert isinstance(ticket, Ticket)
        self.held.append(ticket)
        if len(self.held) > HELD:
            self.admission.closed(self.held.popleft(), 1.0)


class HopelessVariant(Variant):
    """One case: so many backends that are all dead, or all down and dead."""

    def __init__(self, backends: int, is_down: bool) -> None:
        self.is_down = is_down
        super().__init__(backends, bound=False)
        if is_down:
            for n in range(backends):
                self.admission.set_health(f"node-{n}", up=False, now=0.0)
        for client in (self.clients * 2)[: backends // 10 + 10]:
            self._connect(client)  # each backend has failed once

    def measure(self, calls: int) -> None:
        """Take one sample, of fewer calls: each is ten dials."""
        super().measure(calls // 20)

    @property
    def kind(self) -> str:
        """What their backends are."""
        return "down" if self.is_down else "dead"

    def _connect(self, client: str) -> None:
        answer = self.admission.admit(client, "", 1.0)
        while isinstance(answer, Ticket):
            answer = self.admission.failed(answer, 1.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sizes = (10, 1000, 10_000)
    variants = [Variant(n, bound) for bound in (False, True) for n in sizes]
    variants += [HopelessVariant(n, is_down) for is_down in (False, True) for n in sizes]
    gc.collect()
    gc.freeze()
    for _ in range(arguments.rounds):
        for variant in variants:
            variant.measure(arguments.calls)
    rows = []
    for variant in variants:
        few = next(each for each in variants if each.kind == variant.kind)
        decide, whole = map(statistics.median, (variant.decide_us, variant.connection_us))
        rows.append(
            {
                "client": variant.kind,
                "backends": variant.backends,
                "decide_us": round(decide, 2),
                "decide_ratio": round(decide / statistics.median(few.decide_us), 2),
                "connection_us": round(whole, 2),
                "connection_ratio": round(whole / statistics.median(few.connection_us), 2),
            }
        )
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        "decide: one decision. connection: admit, reserve, bind, release;\n"
        "for dead and down backends: admit, ten failed dials, refuse. Medians.\n"
    )
    print(
        f"{'client':8}{'backends':>9}{'decide us':>11}{'ratio':>7}{'connection us':>15}{'ratio':>7}"
    )
    for row in rows:
        print(
            f"{row['client']:8}{row['backends']:>9}{row['decide_us']:>11}"
            f"{row['decide_ratio']:>7}{row['connection_us']:>15}{row['connection_ratio']:>7}"
        )


if __name__ == "__main__":
    main()
