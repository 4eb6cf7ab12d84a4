"""`edgeproxy explain`: which backend a client would get, and why."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgeproxy.cli.running.options import socket_option

if TYPE_CHECKING:
    from edgeproxy.core.admission.explanation import Decision


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "explain",
        parents=[socket_option()],
        help="say which backend a client would get, and why",
        description="Decide for a client as the proxy would with this environment and the "
        "current routing database, with no open connections and no bound clients.",
    )
    parser.add_argument("client_ip", help="IPv4 or IPv6 address of the client")
    parser.add_argument("--app", help="decide for this app (default: EDGEPROXY_APP)")
    parser.add_argument(
        "--live",
        action="store_true",
        help="ask the running proxy, with its load and bindings; --socket does so, too",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the decision. Exit code 1 if the client would be refused."""
    _check_address(arguments.client_ip)
    if arguments.live or arguments.socket:
        decision = _ask(arguments)
    else:
        decision = _decide(arguments.client_ip, arguments.app)
    if arguments.json:
        import json

        print(json.dumps(asdict(decision), indent=2))
    else:
        print(_for_people(decision))
        if not (arguments.live or arguments.socket):
            print("\nwithout load, bindings and failures: `--live` asks the running proxy")
    return 0 if decision.backend else 1


def _ask(arguments: argparse.Namespace) -> Decision:
    """Return the decision of the running proxy."""
    from edgeproxy.cli.running.ask import ask
    from edgeproxy.core.admission.explanation import CandidateRecord, Decision
    from edgeproxy.core.geo.origin import Origin

    app = {} if arguments.app is None else {"app": arguments.app}
    answer = ask(arguments, "/explain", client=arguments.client_ip, **app)
    answer["origin"] = Origin(**answer["origin"])
    answer["candidates"] = tuple(CandidateRecord(**candidate) for candidate in answer["candidates"])
    return Decision(**answer)


def _check_address(client_ip: str) -> None:
    import ipaddress

    from edgeproxy.errors import UsageError

    try:
        ipaddress.ip_address(client_ip)
    except ValueError:
        raise UsageError(f"{client_ip!r} is not an IPv4 or IPv6 address") from None


def _decide(client_ip: str, app: str | None) -> Decision:
    from edgeproxy.cli.database.destination import own_addresses
    from edgeproxy.config import load as config
    from edgeproxy.control.geoip import Geo
    from edgeproxy.core.admission.access import AccessControl
    from edgeproxy.core.admission.admission import Admission
    from edgeproxy.core.admission.explanation import explain
    from edgeproxy.core.backends.local_overrides import overlaid
    from edgeproxy.core.geo.address import normalise
    from edgeproxy.store.choice import make_store

    loaded = config.load(os.environ)
    settings = loaded.config
    store = make_store(settings.database, replace(settings.postgres, snapshot=None))
    try:
        snapshot = store.read()
    finally:
        store.close()
    geo = Geo(settings.geo)
    admission = Admission(
        settings.admission,
        settings.affinity,
        settings.ejection,
        geo.locate,
        access=AccessControl(settings.access),
    )
    scope = settings.admission.app if app is None else app
    circular = dict(own_addresses().circular(snapshot.backends))
    usable = tuple(each for each in snapshot.backends if each not in circular)
    admission.publish(overlaid(usable, loaded.overlays), (scope,))
    return explain(admission, normalise(client_ip), scope, now=0.0)


def _for_people(decision: Decision) -> str:
    from edgeproxy.cli.table import text_table

    origin = decision.origin
    country = origin.country or "unknown"
    source = f"{origin.source} {origin.match}" if origin.match else origin.source
    lines = [
        f"client      {decision.client}",
        f"country     {country if country == source else f'{country} ({source})'}",
        f"region      {origin.region or 'unknown'}",
        f"POP region  {decision.pop_region}",
        f"app         {decision.scope or '* (all as one pool)'}",
        f"backend     {decision.backend or 'none: the client is refused'} ({decision.how})",
    ]
    if not decision.candidates:
        return "\n".join(
            [*lines, "", "no backend of this app is in the table: see `edgeproxy db show`"]
        )
    lines += [
        "",
        text_table(
            ("backend", "region", "country", "address", "tier", "load", "weight", "score", "note"),
            [
                (
                    candidate.id,
                    candidate.region,
                    candidate.country or "-",
                    candidate.address,
                    candidate.tier,
                    f"{candidate.active}/{candidate.soft_limit}",
                    candidate.weight,
                    "-"
                    if candidate.score is None or candidate.excluded
                    else f"{candidate.score:.3f}",
                    "chosen" if candidate.id == decision.backend else candidate.excluded or "",
                )
                for candidate in decision.candidates
            ],
        ),
    ]
    return "\n".join(lines)
