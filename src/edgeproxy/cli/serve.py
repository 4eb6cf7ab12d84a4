"""`edgeproxy serve`, also installed as `edge-proxy`: run the proxy until it is stopped."""

from __future__ import annotations

import argparse
from typing import Any

from edgeproxy.cli.version import Version


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "serve",
        help="run the proxy",
        description="Run the proxy. It is configured by EDGEPROXY_* variables and the file "
        "named by EDGEPROXY_CONFIG; see `edgeproxy config show`. SIGTERM lets open "
        "connections finish, SIGHUP reads the database and the geo files again at once.",
    )
    parser.add_argument("--version", action=Version, help="print version and engine, and exit")
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Serve until a signal stops the proxy."""
    import os

    from edgeproxy.config import load as config
    from edgeproxy.process import app

    return app.serve(config.load(os.environ))
