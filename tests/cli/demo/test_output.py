"""The demo's output: colours only for terminals, marks that every encoding has."""

from __future__ import annotations

import io

import pytest

from edgeproxy.cli.demo.expected import UnmetError
from edgeproxy.cli.demo.output import Output


class Paper(io.TextIOWrapper):
    """Keeps what is printed; a terminal or not, with an encoding of choice."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = False) -> None:
        self._bytes = io.BytesIO()
        self._terminal = terminal
        super().__init__(self._bytes, encoding)

    def isatty(self) -> bool:
        return self._terminal

    def printed(self) -> str:
        return self._bytes.getvalue().decode(self.encoding)


@pytest.fixture(autouse=True)
def terminal_with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_marks_need_an_encoding_that_has_them() -> None:
    paper, typewriter = Paper(), Paper("ascii")
    Output(paper).met("it works")
    Output(typewriter).met("it works")
    assert paper.printed() == "✓ it works\n"
    assert typewriter.printed() == "ok it works\n"


def test_an_unmet_claim_says_what_was_expected_and_what_was_seen() -> None:
    paper = Paper()
    Output(paper).unmet(UnmetError("the client is served", "sa-node-1", "nothing"))
    assert paper.printed().splitlines() == [
        "✗ the client is served",
        "    expected: sa-node-1",
        "    seen:     nothing",
    ]


@pytest.mark.parametrize(
    ("terminal", "name", "value", "coloured"),
    [
        (True, "NO_COLOR", "", True),
        (False, "NO_COLOR", "", False),
        (True, "NO_COLOR", "1", False),
        (True, "TERM", "dumb", False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, name: str, value: str, coloured: bool
) -> None:
    monkeypatch.setenv(name, value)
    paper = Paper(terminal=terminal)
    Output(paper).heading("1. A step")
    assert ("\x1b[" in paper.printed()) == coloured


def test_every_line_of_a_table_is_indented() -> None:
    paper = Paper()
    Output(paper).note("CLIENT  COUNTRY\n127.0.0.1  unknown")
    assert all(line.startswith("  ") for line in paper.printed().splitlines())
