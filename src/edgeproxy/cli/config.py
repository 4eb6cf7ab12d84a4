"""`edgeproxy config`: check and show the configuration from environment and file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the commands to the subparsers."""
    group = commands.add_parser("config", help="check and show the configuration")
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = actions.add_parser("check", help="validate the environment and the file")
    check.set_defaults(run=run_check)
    show = actions.add_parser("show", help="print every value and where it came from")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--toml", action="store_true", help="print a complete file for EDGEPROXY_CONFIG"
    )
    show.set_defaults(run=run_show)


def run_check(_arguments: argparse.Namespace) -> int:
    """Validate the configuration as a starting proxy would."""
    from edgeproxy.api.settings import token_of
    from edgeproxy.config import load as config
    from edgeproxy.control.geoip import Geo
    from edgeproxy.store.choice import check_driver
    from edgeproxy.tls.authorities import backend_authorities
    from edgeproxy.tls.certificates import Certificates

    loaded = config.load(os.environ)
    Geo(loaded.config.geo)
    if loaded.config.api.enabled:
        token_of(loaded.config.api)
    if loaded.config.listen_settings().speaks_tls:
        Certificates(loaded.config.tls).load()
    if loaded.config.listeners.backend_tls:
        backend_authorities(loaded.config.listeners.backend_tls_ca)
    if loaded.config.postgres.enabled:
        check_driver()
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    chosen = sum(setting.source != "default" for setting in loaded.effective)
    print(f"the configuration is valid: {chosen} of {len(loaded.effective)} settings given")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print every setting with its value and its source."""
    from edgeproxy.cli.table import text_table
    from edgeproxy.config import load as config

    loaded = config.load(os.environ)
    if arguments.toml:
        from edgeproxy.config.file import written

        print(written(loaded.effective, loaded.overlays))
        return 0
    rows = [
        (
            effective.setting.variable,
            config.shown(effective.value),
            effective.source,
            effective.setting.file_key,
            effective.setting.meaning,
        )
        for effective in loaded.effective
    ]
    names = ("variable", "value", "source", "file_key", "meaning")
    if arguments.json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
    else:
        print(text_table(names, rows))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0
