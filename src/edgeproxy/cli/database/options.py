"""The options that commands on a routing database share, and the file that they select."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

VARIABLE = "EDGEPROXY_DB_PATH"
DEFAULT_PATH = "routing.db"


def database_option() -> argparse.ArgumentParser:
    """Return the `--db` option, for `parents=`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--db",
        metavar="PATH",
        type=Path,
        help=f"the routing database, a file (default: PostgreSQL if the configuration says so, "
        f"else {VARIABLE}, else {DEFAULT_PATH})",
    )
    return parent


def json_option() -> argparse.ArgumentParser:
    """Return the `--json` option, for `parents=`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parent


def database_path(args: argparse.Namespace) -> Path:
    """Return the database file that a command works on.

    The first of these that names it: option, configuration (file and environment), environment,
    default. The configuration is loaded only if there is a file, so that a command starts fast.
    """
    chosen: Path | None = args.db
    if chosen is None and os.environ.get("EDGEPROXY_CONFIG"):
        from edgeproxy.config import load as config

        return config.load(os.environ).config.database.path
    return chosen or Path(os.environ.get(VARIABLE) or DEFAULT_PATH)
