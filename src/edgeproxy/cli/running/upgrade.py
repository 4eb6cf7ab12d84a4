"""`edgeproxy upgrade`: the running proxy starts a successor, which takes over its listeners."""

from __future__ import annotations

import argparse
from typing import Any

from edgeproxy.cli.running.options import socket_option


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "upgrade",
        parents=[socket_option()],
        help="let the running proxy start a successor that takes over",
        description="Start the installed version beside the running one. When it accepts "
        "clients, the old process lets its connections finish and ends. No client is refused "
        "meanwhile. SIGUSR2 does the same.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send the request and print the process id of the successor."""
    from edgeproxy.cli.running.ask import ask

    print(f"process {ask(arguments, '/upgrade', 'POST')['pid']} has taken over")
    return 0
