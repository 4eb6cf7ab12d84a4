"""Opens the routing database that a command works on: `--db`, or what the configuration names.

The configuration is loaded only if it may name a PostgreSQL server, so that a command on a file
starts fast.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeproxy.cli.database.options import database_path

if TYPE_CHECKING:
    import argparse

    from edgeproxy.store.edits import NodeEdits, RouteEdits
    from edgeproxy.store.postgres.link import Link
    from edgeproxy.store.postgres.url import PostgresSettings

ENABLED = "EDGEPROXY_POSTGRES_ENABLED"


def postgres_settings(args: argparse.Namespace) -> PostgresSettings | None:
    """Return the settings of the PostgreSQL server, or None if the database is a file."""
    if args.db is not None or not (os.environ.get("EDGEPROXY_CONFIG") or os.environ.get(ENABLED)):
        return None
    from edgeproxy.config import load as config

    postgres = config.load(os.environ).config.postgres
    return postgres if postgres.enabled else None


def open_nodes(args: argparse.Namespace) -> NodeEdits:
    """Return the nodes of the database that the arguments select."""
    postgres = postgres_settings(args)
    if postgres is None:
        from edgeproxy.store.sqlite.nodes import Nodes

        return Nodes(database_path(args))
    from edgeproxy.store.postgres.nodes import PostgresNodes

    return PostgresNodes(_link_to(postgres))


def open_routes(args: argparse.Namespace) -> RouteEdits:
    """Return the server names of the database that the arguments select."""
    postgres = postgres_settings(args)
    if postgres is None:
        from edgeproxy.store.sqlite.routes import Routes

        return Routes(database_path(args))
    from edgeproxy.store.postgres.routes import PostgresRoutes

    return PostgresRoutes(_link_to(postgres))


def make(args: argparse.Namespace, *, force: bool = False) -> tuple[object, bool]:
    """Create the database if it is missing; with `force`, replace an existing one.

    Return the path or URL of the database, and whether something was created.
    """
    postgres = postgres_settings(args)
    if postgres is None:
        from edgeproxy.store.sqlite.database import create, replace

        path = database_path(args)
        if force:
            replace(path)
        return path, force or create(path)
    from edgeproxy.store.postgres.schema import make_parts, missing_parts, replace_all

    link = _link_to(postgres)
    try:
        if force:
            link.edit(replace_all)
            return link.url, True
        # A role that may not create tables can still add nodes if all tables exist.
        return link.url, bool(link.read(missing_parts) and link.edit(make_parts))
    finally:
        link.close()


def _link_to(postgres: PostgresSettings) -> Link:
    """Return the link to a server. Raises ConfigError without the driver."""
    from edgeproxy.store.choice import check_driver
    from edgeproxy.store.postgres.link import Link

    check_driver()
    return Link(postgres)
