"""Parses the words of a command line; what is wrong is said with the usage of the command meant.

`argparse` lets the outermost parser complain of an option that a subcommand does not know, and
lists all commands for a wrong one. Here the subcommand complains, and names the nearest.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """The parser of `edgeproxy` and, through `add_subparsers`, of each of its commands."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an argument that is not known ends here, in the command that it was given to."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return known, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        option = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
        if not option:
            self.error(f"unexpected: {' '.join(unknown)}")
        options = [each for each in self._option_string_actions if each.startswith("--")]
        self.error(f"there is no option {option}{_nearest(option, options)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            names = list(action.choices)
            shown = ascii(value) if not str(value).isprintable() else value
            hint = _nearest(value, names)
            listed = f"{' All:' if hint else '; there are'} {', '.join(names)}"
            self.error(f"there is no command {shown}{hint}{listed}")
        super()._check_value(action, value)


def _nearest(word: str, words: list[str]) -> str:
    """Return a hint at the most similar word, or ""."""
    from difflib import get_close_matches

    near = get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""
