"""`--version`: the version of edgeProxy and the engine that `auto` selects here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


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
        from edgeproxy.engine.choice import best_kind
        from edgeproxy.version import VERSION

        del namespace, values, option_string
        print(f"edgeproxy {VERSION} (engine: {best_kind()})")
        parser.exit()
