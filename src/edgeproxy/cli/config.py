"""`edgeproxy config`: check and show the configuration from environment and file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeproxy.config.config import Effective


def add_parser(commands: Any) -> None:
    """Add the commands to the subparsers."""
    group = commands.add_parser("config", help="check and show the configuration")
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = actions.add_parser(
        "check",
        help="find what would keep a proxy from starting",
        description="Find what would keep a proxy from starting: values, files, folders, "
        "addresses. Nothing is started or changed.",
    )
    check.add_argument("--json", action="store_true", help="print JSON, for programs")
    _file_option(check)
    check.set_defaults(run=run_check)
    show = actions.add_parser("show", help="print every value and where it came from")
    show.add_argument(
        "section", nargs="?", help="only this section of the file, such as proxy, and what it means"
    )
    _file_option(show)
    show.add_argument("--changed", action="store_true", help="only what is not the default")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--toml", action="store_true", help="print a complete configuration file")
    show.set_defaults(run=run_show)


def _file_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="PATH",
        help="the TOML file with settings, as of `serve` (default: EDGEPROXY_CONFIG)",
    )


def _environ(arguments: argparse.Namespace) -> Mapping[str, str]:
    """Return the environment that `serve` would have with the same option."""
    from edgeproxy.config.file import FILE_VARIABLE

    if arguments.config is None:
        return os.environ
    return {**os.environ, FILE_VARIABLE: arguments.config}


def run_check(arguments: argparse.Namespace) -> int:
    """Find what would keep a proxy from starting. Exit code 2 for a value, 1 for all else."""
    import logging

    from edgeproxy.cli.config_check import check
    from edgeproxy.errors import EdgeProxyError, UsageError
    from edgeproxy.log import ROOT

    # What the parts would log is among the findings, and no log has been started.
    logging.getLogger(ROOT).addHandler(logging.NullHandler())
    found = check(_environ(arguments))
    code = (2 if found.is_usage else 1) if found.faults else 0
    if arguments.json:
        told = {
            "valid": not found.faults,
            "faults": found.faults,
            "warnings": found.warnings,
            "unchecked": found.unchecked,
        }
        print(json.dumps(told, indent=2))
        return code
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if found.faults:
        kind = UsageError if found.is_usage else EdgeProxyError
        lines = ["a proxy would not start:", *found.faults]
        if found.unchecked:
            left = ", ".join(found.unchecked)
            lines.append(f"correct that and check again: not looked at yet are {left}")
        raise kind("\n  ".join(lines))
    print(f"the configuration is valid: {found.given} of {found.settings} settings given")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print every setting with its value and its source."""
    from edgeproxy.cli.settings_table import settings_table
    from edgeproxy.config import load as config

    loaded = config.load(_environ(arguments))
    chosen = _chosen(loaded.effective, arguments.section, changed=arguments.changed)
    if arguments.toml:
        from edgeproxy.config.file import written

        print(written(chosen, {} if arguments.section else loaded.overlays))
        return 0
    rows = [
        (
            effective.setting.variable,
            config.shown(effective.value),
            effective.source,
            effective.setting.file_key,
            effective.setting.meaning,
        )
        for effective in chosen
    ]
    names = ("variable", "value", "source", "file_key", "meaning")
    if arguments.json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
    else:
        table = settings_table(chosen, with_meaning=bool(arguments.section))
        print(table or "nothing but defaults")
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _chosen(
    effective: Sequence[Effective], section: str | None, *, changed: bool
) -> list[Effective]:
    """Return the settings that were asked for. Raises UsageError for an unknown section."""
    from edgeproxy.config.file import nearest
    from edgeproxy.errors import UsageError

    sections = list(dict.fromkeys(each.setting.section for each in effective))
    if section is not None and section not in sections:
        raise UsageError(
            f"there is no section {section!r}{nearest(section, sections)}; there are "
            f"{', '.join(sections)}"
        )
    return [
        each
        for each in effective
        if section in (None, each.setting.section) and not (changed and each.source == "default")
    ]
