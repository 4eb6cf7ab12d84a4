"""The documents: links lead somewhere, and what they name exists in the program."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from edgeproxy import cli
from edgeproxy.config.load import FILE_VARIABLE
from edgeproxy.config.old_names import REMOVED, RENAMED
from edgeproxy.config.table import SETTINGS
from edgeproxy.control.health.command import environment
from edgeproxy.core.admission.access import Denied
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.routing.choice import Reason
from edgeproxy.engine.contract import CloseReason, HandshakeFailure
from edgeproxy.gate.connection_records import TURNED_AWAY_BY
from edgeproxy.gate.preamble import PreambleFault
from tools.state_tables import with_tables

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "edgeproxy"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)
EXPECTED = {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"}
TRANSLATED = sorted(path.name for path in ROOT.glob("docs/pt-BR/*.md"))

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(
    r"(?:(?<=bin/)|(?<=\./)|(?<![\w.:/-])(?<!from ))(edgeproxy|edge-proxy|task) ([^`\n,;&|#]*)"
)
PATH = re.compile(r"`([\w./-]+/(?:[\w.-]+\.(?:py|pyx|md))?)`")
EVENT = re.compile(r'\b_?log\.(?:debug|info|warning|error|bug)\(\s*f?"([^"]+)"', re.IGNORECASE)


def text_of(document: str) -> str:
    """Return the text of a document, named from the root."""
    return (ROOT / document).read_text(encoding="utf-8")


def code_in(text: str) -> str:
    """Return what stands in code blocks and between backticks, a piece a line."""
    return "\n".join(FENCED.findall(text) + INLINE.findall(FENCED.sub("", text)))


def anchors(text: str) -> set[str]:
    """Return what links may name after `#`: the headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def commands(text: str) -> list[tuple[str, ...]]:
    """Return the commands that the code in a text calls, each as its words."""
    return [(program, *rest.split()) for program, rest in COMMAND.findall(code_in(text))]


def tasks() -> set[str]:
    """Return the names and aliases that `task` knows."""
    taskfile = text_of("Taskfile.yaml").partition("\ntasks:\n")[2]
    names = re.findall(r"^  ([a-z][\w-]*):$", taskfile, re.MULTILINE)
    aliases = re.findall(r"^    aliases: \[(.+)\]$", taskfile, re.MULTILINE)
    return {*names, *(alias.strip() for line in aliases for alias in line.split(","))}


def fault(words: tuple[str, ...]) -> str | None:
    """Return what is wrong with a call of `edgeproxy` or `task`, or None."""
    program, *rest = words
    if program == "task":
        name = next((word for word in rest if not word.startswith("-")), None)
        return f"no task {name}" if name and name not in tasks() else None
    parser: argparse.ArgumentParser = cli._parser([])
    for word in ("serve", *rest) if program == "edge-proxy" else rest:
        choices = subcommands(parser)
        if word.startswith("--") and word not in parser._option_string_actions:
            return f"no option {word}"
        if choices and re.fullmatch(r"[a-z][a-z-]*", word):
            if word not in choices:
                return f"no command {word}"
            parser = choices[word]
    return None


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a command's subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_the_documents_are_there() -> None:
    assert set(DOCUMENTS) >= EXPECTED
    assert "node-management.md" in TRANSLATED


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in LINK.findall(FENCED.sub("", text_of(document))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        assert not anchor or anchor in anchors(target.read_text("utf-8")), f"{document}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document: str) -> None:
    for words in commands(text_of(document)):
        assert fault(words) is None, f"{document}: {' '.join(words)}: {fault(words)}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("./task node:add -- a sa 10.0.0.1 --app x", None),
        ("task node-bogus -- a", "no task node-bogus"),
        ("/opt/bin/edgeproxy db show --json", None),
        ("edgeproxy db shows", "no command shows"),
        ("edge-proxy --bogus", "no option --bogus"),
        ("edgeproxy node add a sa 10.0.0.1 --bogus 3", "no option --bogus"),
    ],
)
def test_a_wrong_command_would_be_found(line: str, wrong: str | None) -> None:
    (words,) = commands(f"`{line}`")
    assert fault(words) == wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_variables_exist(document: str) -> None:
    known = {FILE_VARIABLE, *(each.variable for each in SETTINGS)}
    known |= environment({}, Backend("", "", "", "", 0)).keys()  # of commands of exec probes
    if document == "CHANGELOG.md":
        known |= {each.variable for each in (*RENAMED, *REMOVED)}
    assert set(re.findall(r"\bEDGEPROXY_[A-Z0-9_]*[A-Z]\b(?!_)", text_of(document))) <= known


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_translation_shows_the_same_commands_and_sections(name: str) -> None:
    english, portuguese = text_of(f"docs/{name}"), text_of(f"docs/pt-BR/{name}")
    assert commands(english) == commands(portuguese)
    levels = [
        re.findall(r"^#+ ", FENCED.sub("", text), re.MULTILINE) for text in (english, portuguese)
    ]
    assert levels[0] == levels[1]


def test_every_event_in_the_log_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/operations.md"), re.MULTILINE))
    events = {
        name for path in SOURCE.rglob("*.py") for name in EVENT.findall(path.read_text("utf-8"))
    }
    assert "ready" in events
    for event in events:
        pattern = re.sub(r"\{.*?\}", r"\\w+", event)
        assert any(re.fullmatch(pattern, name) for name in explained), event


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_files_and_folders_that_are_named_exist(document: str) -> None:
    """A path is named from the root, from the source, or from the document's own folder."""
    here = (ROOT, SOURCE, (ROOT / document).parent)
    missing = [
        path
        for path in PATH.findall(text_of(document))
        if not path.startswith("/") and not any((start / path).exists() for start in here)
    ]
    assert not missing


def test_every_end_of_a_connection_is_explained_with_who_ended_it() -> None:
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ((?:`\w+`(?:, )?)+) \| .* \|$",
        text_of("docs/observability.md").partition("| HAProxy |\n")[2],
        re.MULTILINE,
    )
    explained = {
        end: set(re.findall(r"\w+", sides))
        for ends, sides in rows
        for end in re.findall(r"\w+", ends)
    }
    assert (explained["finished"], explained["denied"]) == ({"client", "backend"}, {"proxy"})
    ends = {*CloseReason, *HandshakeFailure, *PreambleFault, *Reason, *Denied}
    assert explained.keys() == {str(end) for end in ends}
    for end, side in TURNED_AWAY_BY.items():
        assert explained[str(end)] == {str(side)}


def test_state_tables_are_those_of_the_code() -> None:
    text = text_of("ARCHITECTURE.md")
    assert "| SERVING | STOP_SIGNAL | STOPPING |" in text
    assert with_tables(text) == text, "run python -m tools.state_tables"
