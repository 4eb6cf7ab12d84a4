"""`edgeproxy drain` and `edgeproxy undrain`: stop or resume giving a backend new clients."""

from __future__ import annotations

import argparse
from typing import Any

from edgeproxy.cli.running.options import socket_option


def add_parser(commands: Any) -> None:
    """Add the commands to the subparsers."""
    drain = commands.add_parser(
        "drain",
        parents=[socket_option()],
        help="send no new clients to a backend of the running proxy",
        description="Send a backend no new clients, not even those bound to it; open "
        "connections continue. This holds for this POP only, until `undrain` or a restart. The "
        "routing database does not change.",
    )
    drain.add_argument("backend", help="id of the backend")
    drain.set_defaults(run=run, action="/drain")
    undrain = commands.add_parser(
        "undrain",
        parents=[socket_option()],
        help="send new clients to a drained backend again",
    )
    undrain.add_argument("backend", help="id of the backend")
    undrain.set_defaults(run=run, action="/undrain")


def run(arguments: argparse.Namespace) -> int:
    """Send the request and print the result."""
    from edgeproxy.cli.running.ask import NotFoundError, ask

    try:
        done = ask(arguments, arguments.action, "POST", backend=arguments.backend)
    except NotFoundError as error:
        from edgeproxy.config.file import nearest
        from edgeproxy.errors import EdgeProxyError
        from edgeproxy.store.edits import MAX_GUESSES

        ids = [each["id"] for each in ask(arguments, "/status")["backends"]]
        meant = nearest(arguments.backend, ids[:MAX_GUESSES]) or ";"
        raise EdgeProxyError(f"{error}{meant} `edgeproxy status` lists all") from None
    what = "is being drained" if done["draining"] else "is no longer drained"
    print(f"{done['backend']} {what}")
    return 0
