"""`edgeproxy route …`: edit which app a server name selects on listeners with the mode `sni`."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from edgeproxy.cli.database.opening import open_nodes, open_routes
from edgeproxy.cli.database.options import database_option, json_option
from edgeproxy.cli.database.output import note
from edgeproxy.cli.table import cell, text_table

if TYPE_CHECKING:
    import argparse


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `route` and its subcommands to the commands of `edgeproxy`."""
    parser = commands.add_parser("route", help="map server names to apps")
    subcommands = parser.add_subparsers(metavar="COMMAND", dest="route_command", required=True)
    options = [database_option(), json_option()]
    for name, run, what in (
        ("set", _set, "map a server name to an app"),
        ("remove", _remove, "remove a server name"),
        ("list", _list, "list all server names"),
    ):
        command = subcommands.add_parser(name, parents=options, help=what, description=what)
        if name != "list":
            command.add_argument("name", help="www.example.com, *.example.com or * for all others")
        if name == "set":
            command.add_argument("app")
        command.set_defaults(run=run)


def _set(args: argparse.Namespace) -> int:
    with closing(open_routes(args)) as routes:
        name = routes.set(args.name, args.app)
    with closing(open_nodes(args)) as nodes:
        apps = {node.values["app"] for node in nodes.read()}
    if args.app not in apps:
        note(f"warning: no node serves app {args.app} yet: its clients are refused")
    return _done(args, {"name": name, "app": args.app}, f"{name} leads to {args.app}")


def _remove(args: argparse.Namespace) -> int:
    with closing(open_routes(args)) as routes:
        name = routes.remove(args.name)
    return _done(args, {"name": name}, f"removed {name}")


def _list(args: argparse.Namespace) -> int:
    with closing(open_routes(args)) as routes:
        pairs = routes.read()
    if args.json:
        print(json.dumps([{"name": name, "app": app} for name, app in pairs]))
    else:
        print(text_table(("name", "app"), pairs))
    return 0


def _done(args: argparse.Namespace, fields: dict[str, str], line: str) -> int:
    print(json.dumps(fields) if args.json else cell(line))
    return 0
