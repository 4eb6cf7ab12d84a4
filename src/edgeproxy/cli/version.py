"""`--version`: the version of edgeProxy, and the engine that a proxy started here would have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the option to a parser."""
    parser.add_argument(
        "-V", "--version", action=Version, help="print version and engine, and exit"
    )


class Version(argparse.Action):
    """Prints one line and exits. Only then does it look for the engine."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=options.get("help"))
        del dest

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Print the version and exit."""
        from edgeproxy.version import VERSION

        del namespace, values, option_string
        print(f"edgeproxy {VERSION} (engine: {_engine(os.environ.get('EDGEPROXY_ENGINE', ''))})")
        parser.exit()


def _engine(wanted: str) -> str:
    """Return which engine that value of EDGEPROXY_ENGINE gives here."""
    from edgeproxy.engine.choice import KINDS, best_kind

    wanted = wanted or "auto"
    if wanted not in KINDS:
        return f"none: EDGEPROXY_ENGINE={wanted!r} is none of {', '.join(KINDS)}"
    best = best_kind()
    if wanted == "native" and best != "native":
        return "none: EDGEPROXY_ENGINE='native', which is not built here"
    return best if wanted == "auto" else wanted
