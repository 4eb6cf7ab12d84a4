"""`edgeproxy db migrate`: copy the nodes and server names of one routing database to another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.cli.database.output import note
from edgeproxy.cli.table import cell
from edgeproxy.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgeproxy.store.migration import End

KINDS = ("sqlite", "postgres")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `edgeproxy db`."""
    parser = commands.add_parser(
        "migrate",
        help="copy all nodes from a file to PostgreSQL, or back",
        description="Copy all nodes and server names from one routing database to the other, in "
        "one transaction. The target keeps its own rows; the command fails if a row is in both "
        "and differs. The source is only read.",
    )
    parser.add_argument("--from", dest="source", choices=KINDS, required=True)
    parser.add_argument("--to", dest="target", choices=KINDS, required=True)
    parser.add_argument(
        "--db", metavar="PATH", type=Path, help="the file (default: EDGEPROXY_DB_PATH)"
    )
    parser.add_argument(
        "--url",
        help="the server (default: EDGEPROXY_POSTGRES_URL; `ps` shows an option to all users)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace nodes of the target that differ"
    )
    parser.add_argument(
        "--skip-faulty", action="store_true", help="do not copy nodes that proxies would skip"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Copy everything, or nothing."""
    if args.source == args.target:
        raise UsageError("--from and --to must differ: sqlite to postgres, or postgres to sqlite")
    from edgeproxy.store.migration import migrate

    source, target = (_end(kind, args) for kind in (args.source, args.target))
    try:
        done = migrate(source, target, overwrite=args.overwrite, skip_faulty=args.skip_faulty)
    finally:
        source.close()
        target.close()
    print(
        cell(
            f"migrated {source.path} to {target.path}: {done.added} nodes added, {done.replaced} "
            f"replaced, {done.unchanged} unchanged; {done.routes} server names added or replaced"
        )
    )
    if done.faulty:
        note(f"{done.faulty} faulty nodes were left behind")
    if done.countries_lost:
        from edgeproxy.store.edits import ADD_COUNTRY

        note(
            f"warning: the countries of {done.countries_lost} nodes are not kept: the table there "
            f"has no column country ({ADD_COUNTRY}, then once more)"
        )
    return 0


def _end(kind: str, args: argparse.Namespace) -> End:
    from dataclasses import replace

    from edgeproxy.config import load as config
    from edgeproxy.store.migration import PostgresEnd, SqliteEnd
    from edgeproxy.store.postgres.url import postgres_url
    from edgeproxy.values import BadValueError

    loaded = config.load(os.environ).config
    if kind == "sqlite":
        return SqliteEnd(args.db or loaded.database.path)
    from edgeproxy.store.choice import check_driver

    check_driver()
    settings = loaded.postgres
    if args.url:
        try:
            settings = replace(settings, url=postgres_url(args.url))
        except BadValueError as bad:
            raise UsageError(f"--url is not valid: {bad}") from None
    if settings.url is None:
        raise UsageError("there is no URL of a server: set EDGEPROXY_POSTGRES_URL or --url")
    return PostgresEnd(settings)
