"""Prints the demo: headings, commands, tables, and a mark for each claim.

Colours are used only on a terminal, and not with NO_COLOR. Marks are ASCII where the encoding
has no others. Every line is flushed at once, because people watch the demo run.
"""

from __future__ import annotations

import os
import textwrap
from typing import TextIO

from edgeproxy.cli.demo.expected import UnmetError

INDENT = "  "

_BOLD, _DIM, _GREEN, _RED = "1", "2", "32", "31"


class Output:
    """Prints to one stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = out.isatty() and not plain
        self._met, self._unmet = ("✓", "✗") if _can_encode(out, "✓✗") else ("ok", "FAILED")

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._print("\n" + self._in(_BOLD, text) + "\n")

    def ending(self, text: str) -> None:
        """Print the last line."""
        self._print("\n" + self._in(_BOLD, text))

    def note(self, text: str) -> None:
        """Print indented lines."""
        self._print(textwrap.indent(text, INDENT))

    def command(self, text: str) -> None:
        """Print a command as the user would type it."""
        self._print(INDENT + self._in(_BOLD, f"$ {text}"))

    def aside(self, text: str) -> None:
        """Print the output of a program."""
        self._print(textwrap.indent(self._in(_DIM, text), INDENT))

    def met(self, claim: str) -> None:
        """Print that a claim was verified."""
        self._print(f"{self._in(_GREEN, self._met)} {claim}")

    def unmet(self, error: UnmetError) -> None:
        """Print that a claim does not hold."""
        self._print(f"{self._in(_RED, self._unmet)} {error.claim}")
        self.note(f"  expected: {error.expected}\n  seen:     {error.seen}")

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _can_encode(out: TextIO, text: str) -> bool:
    try:
        text.encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
