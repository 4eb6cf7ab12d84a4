"""`edgeproxy drain` and `edgeproxy undrain`: give a backend no new clients, or clients again."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the commands to the subparsers."""
    drain = commands.add_parser(
        "drain",
        help="give a backend of the running proxy no new clients",
        description="Give a backend no new clients, not even those bound to it; open "
        "connections go on. It holds for this POP, until `undrain` or a restart. The routing "
        "database stays as it is. Needs EDGEPROXY_CONTROL_SOCKET.",
    )
    drain.add_argument("backend", help="id of the backend")
    drain.set_defaults(run=run, action="/drain")
    undrain = commands.add_parser("undrain", help="give a drained backend clients again")
    undrain.add_argument("backend", help="id of the backend")
    undrain.set_defaults(run=run, action="/undrain")


def run(arguments: argparse.Namespace) -> int:
    """Tell the proxy, and say what it did."""
    from edgeproxy.cli.running.ask import ask

    done = ask(arguments.action, "POST", backend=arguments.backend)
    what = "is being drained" if done["draining"] else "gets clients again"
    print(f"{done['backend']} {what}")
    return 0
