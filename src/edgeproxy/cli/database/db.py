"""`edgeproxy db …`: make the routing database, look at it, take it elsewhere.

The store, and with it SQLite, is imported when a command runs.
"""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.cli.database import migrate
from edgeproxy.cli.table import cell, text_table
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError

if TYPE_CHECKING:
    from edgeproxy.store.edits import Node

VARIABLE = "EDGEPROXY_DB_PATH"
DEFAULT_PATH = "routing.db"

_INFINITIES = (float("inf"), float("-inf"))  # JSON has no such numbers, SQLite has


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `db` and what can be done with it to the commands of `edgeproxy`."""
    parser = commands.add_parser("db", help="make the routing database and look at it")
    subcommands = parser.add_subparsers(metavar="COMMAND", dest="db_command", required=True)

    init = subcommands.add_parser(
        "init",
        parents=[database_option()],
        help="create the routing database",
        description="Create an empty routing database: a file, or the tables on a PostgreSQL "
        "server. What exists is left alone.",
    )
    init.add_argument(
        "--force", action="store_true", help="replace what is there: its nodes are lost"
    )
    init.set_defaults(run=_init)

    for name, run, what in (
        ("show", _show, "list all nodes, also deleted and faulty ones"),
        ("healthy", _healthy, "list the nodes that are healthy and not deleted"),
    ):
        command = subcommands.add_parser(
            name, parents=[database_option(), json_option()], help=what
        )
        command.set_defaults(run=run)
    migrate.add_parser(subcommands)


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
    """Return the file that a command is about.

    Option, environment, configuration file, default: the first that says it. The
    configuration is loaded only where there is a file, so that a command starts fast.
    """
    chosen: Path | None = args.db
    if chosen is None and os.environ.get("EDGEPROXY_CONFIG"):
        from edgeproxy.config import load as config

        return config.load(os.environ).config.database.path
    return chosen or Path(os.environ.get(VARIABLE) or DEFAULT_PATH)


def json_node(node: Node) -> dict[str, object]:
    """Return a node as an object for JSON; `fault` is there only if it has one."""
    values = {
        name: cell(value) if isinstance(value, bytes) or value in _INFINITIES else value
        for name, value in node.values.items()
    }
    return {**values, "fault": node.fault} if node.fault else values


def _init(args: argparse.Namespace) -> int:
    from edgeproxy.cli.database.opening import make

    where, is_made = make(args, force=args.force)
    if not is_made:
        raise StoreError(f"{where} exists already: nothing was changed; --force replaces it")
    print(f"created {cell(where)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    _print(_read(args), as_json=args.json)
    return 0


def _healthy(args: argparse.Namespace) -> int:
    healthy = [n for n in _read(args) if n.values["healthy"] == 1 and n.values["deleted"] == 0]
    _print(healthy, as_json=args.json)
    return 0


def _read(args: argparse.Namespace) -> list[Node]:
    from edgeproxy.cli.database.opening import open_nodes

    with closing(open_nodes(args)) as nodes:
        return nodes.read()


def _print(nodes: list[Node], *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps([json_node(node) for node in nodes], indent=2))
        return
    headers = [*COLUMNS]
    if nodes and COUNTRY in nodes[0].values:
        headers.append(COUNTRY)
    if any(node.fault for node in nodes):
        headers.append("fault")
    rows = [[*node.values.values(), node.fault or ""][: len(headers)] for node in nodes]
    print(text_table(headers, rows))
