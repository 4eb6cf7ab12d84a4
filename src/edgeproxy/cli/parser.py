"""Parses the words of a command line; what is wrong is said with the usage of the command meant.

`argparse` lets the outermost parser complain of an option that a subcommand does not know, and
lists all commands for a wrong one. Here the subcommand complains, and names the nearest. An
option is never abbreviated: a mistyped one would be taken for another.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

_STOP = "SIGTERM to the proxy, or systemctl stop edgeproxy"
ELSEWHERE = {
    "edgeproxy": {
        "start": "serve",
        "run": "serve",
        "stop": _STOP,
        "quit": _STOP,
        "reload": "SIGHUP to the proxy, or systemctl reload edgeproxy",
        "restart": "upgrade, or systemctl restart edgeproxy",
        "version": "--version",
        "list": "db show",
        "nodes": "db show",
        "backends": "db show, or status for those of the running proxy",
        "stats": "status",
        "check": "config check",
        "test": "config check",
    },
    "edgeproxy serve": {"--port": "--listen ADDRESS:PORT", "-c": "--config", "-f": "--config"},
    "edgeproxy node": {"list": "edgeproxy db show"},
    "edgeproxy node add": {"--port": "a word after the address", "--weight": "the word after PORT"},
    "edgeproxy node set": {
        "--healthy": "edgeproxy node enable, or disable",
        "--deleted": "edgeproxy node remove, or enable",
        "--ip": "--address",
        "--wg-ip": "--address",
    },
    "edgeproxy db": {"list": "show"},
    "edgeproxy top": {"--once": "--count 1", "-n": "--count", "-d": "--interval"},
    "edgeproxy config": {"test": "check", "validate": "check", "list": "show"},
}
"""What other programs call a thing, by where it is looked for: what does it here."""
BY_ID = {
    "edgeproxy db show": "edgeproxy node show",
    "edgeproxy db healthy": "edgeproxy node show",
}
"""Commands that list everything: which one takes ids."""


class Parser(argparse.ArgumentParser):
    """The parser of `edgeproxy` and, through `add_subparsers`, of each of its commands."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an argument that is not known ends here, in the command that it was given to."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return known, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        option = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
        if not option:
            words = " ".join(unknown)
            by_id = BY_ID.get(self.prog)
            hint = f"; `{by_id} {words}` shows what you name" if by_id else ""
            self.error(f"unexpected: {words}{hint}")
        does_it = ELSEWHERE.get(self.prog, {}).get(option)
        options = [each for each in self._option_string_actions if each.startswith("--")]
        hint = f"; here that is: {does_it}" if does_it else _nearest(option, options)
        self.error(f"there is no option {option}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            names = list(action.choices)
            shown = ascii(value) if not str(value).isprintable() else value
            does_it = ELSEWHERE.get(self.prog, {}).get(value)
            hint = f"; here that is: {does_it}." if does_it else _nearest(value, names)
            listed = f"{' All:' if hint else '; there are'} {', '.join(names)}"
            self.error(f"there is no command {shown}{hint}{listed}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """End with the usage and the message; where a command is missing, name them all."""
        if message.endswith(": COMMAND"):
            names = ", ".join(name for each in self._commands() for name in each.choices)
            message = f"name a command: {names}; `{self.prog} --help` explains them"
        super().error(message)

    def _commands(self) -> list[argparse._SubParsersAction[argparse.ArgumentParser]]:
        return [each for each in self._actions if isinstance(each, argparse._SubParsersAction)]


def _nearest(word: str, words: list[str]) -> str:
    """Return a hint at the most similar word, or ""."""
    from difflib import get_close_matches

    near = get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""
