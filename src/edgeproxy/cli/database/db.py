"""`edgeproxy db …`: create the routing database, list its nodes, migrate it.

The store, and with it SQLite, is imported only when a command runs.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

from edgeproxy.cli.database import migrate
from edgeproxy.cli.database.options import database_option, json_option
from edgeproxy.cli.database.output import json_node, note
from edgeproxy.cli.table import cell, text_table
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.store.edits import Node


FILTERS = {
    "app": "only nodes of this app",
    "region": "only nodes in this region",
    "country": "only nodes in this country",
}
STATES: dict[str, Callable[[Node], bool]] = {
    "healthy": lambda node: node.values["healthy"] == 1 and node.values["deleted"] == 0,
    "unhealthy": lambda node: node.values["healthy"] != 1 and node.values["deleted"] == 0,
    "deleted": lambda node: node.values["deleted"] != 0,
    "faulty": lambda node: node.fault is not None,
}
"""What `--state` selects. `healthy` is what you want, not what probes have found."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `db` and its subcommands to the commands of `edgeproxy`."""
    parser = commands.add_parser("db", help="create the routing database and list its nodes")
    subcommands = parser.add_subparsers(metavar="COMMAND", dest="db_command", required=True)

    init = subcommands.add_parser(
        "init",
        parents=[database_option()],
        help="create the routing database",
        description="Create an empty routing database: a file, or the tables on a PostgreSQL "
        "server. An existing database is left unchanged.",
    )
    init.add_argument(
        "--force", action="store_true", help="replace an existing database; its nodes are lost"
    )
    init.set_defaults(run=_init)

    for name, run, what in (
        ("show", _show, "list all nodes, also deleted and faulty ones"),
        ("healthy", _healthy, "list the nodes that are healthy and not deleted"),
    ):
        command = subcommands.add_parser(
            name, parents=[database_option(), json_option()], help=what
        )
        for field, text in FILTERS.items():
            command.add_argument(f"--{field}", metavar="NAME", help=text)
        if name == "show":
            command.add_argument("--state", choices=STATES, help="only nodes in this state")
        command.set_defaults(run=run)
    migrate.add_parser(subcommands)


def _init(args: argparse.Namespace) -> int:
    from edgeproxy.cli.database.opening import make

    where, is_made = make(args, force=args.force)
    if not is_made:
        raise StoreError(f"{where} exists already: nothing was changed; --force replaces it")
    print(f"created {cell(where)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    return _list(args, args.state)


def _healthy(args: argparse.Namespace) -> int:
    return _list(args, "healthy")


def _list(args: argparse.Namespace, state: str | None) -> int:
    """Print the nodes that the filters select; say so where that is none of them."""
    from edgeproxy.cli.database.opening import open_nodes

    with closing(open_nodes(args)) as nodes:
        found = nodes.read()
    count = len(found)
    lacks_country = all(COUNTRY not in node.values for node in found)
    for field in FILTERS:
        wanted = getattr(args, field)
        if wanted is not None:
            found = [node for node in found if node.values.get(field) == wanted]
    if state:
        found = [node for node in found if STATES[state](node)]
    _print(found, as_json=args.json)
    if not found:
        note(_why_none(count, lacks_country=lacks_country and args.country is not None))
    return 0


def _why_none(count: int, *, lacks_country: bool) -> str:
    """Return why no node of so many is listed."""
    if not count:
        return "there are no nodes yet: add one with `edgeproxy node add`"
    if lacks_country:
        from edgeproxy.store.edits import ADD_COUNTRY

        return f"the table has no column country: add it with {ADD_COUNTRY}"
    return f"none of {count} nodes is selected"


def _print(nodes: list[Node], *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps([json_node(node.values, node.fault) for node in nodes], indent=2))
        return
    headers = [*COLUMNS]
    if nodes and COUNTRY in nodes[0].values:
        headers.append(COUNTRY)
    if any(node.fault for node in nodes):
        headers.append("fault")
    rows = [[*node.values.values(), node.fault or ""][: len(headers)] for node in nodes]
    print(text_table(headers, rows))
