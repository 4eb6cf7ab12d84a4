"""What is wrong with a command line is said with the usage of the command that was meant."""

from __future__ import annotations

import pytest

from edgeproxy.cli import GROUPS
from edgeproxy.cli.parser import ELSEWHERE
from tests.cli.commands import Commands


@pytest.mark.parametrize(
    ("words", "usage", "message"),
    [
        ("serve --fast", "edgeproxy serve ", "there is no option --fast"),
        ("serve --lisen=x", "edgeproxy serve ", "no option --lisen; did you mean --listen?"),
        ("status --jsn", "edgeproxy status ", "no option --jsn; did you mean --json?"),
        ("node set a --prot 3", "edgeproxy node set ", "no option --prot; did you mean --port?"),
        ("db show a b", "edgeproxy db show ", "unexpected: a b; `edgeproxy node show a b` shows"),
        ("status extra", "edgeproxy status ", "unexpected: extra"),
        ("top --once", "edgeproxy top ", "no option --once; here that is: --count 1"),
        ("db migrate --too", "edgeproxy db migrate ", "--t"),
        ("node set a --healthy 0", "edgeproxy node set ", "here that is: edgeproxy node enable"),
        ("node add a sa ::1 --port 1", "edgeproxy node add ", "a word after the address"),
        ("serve -c file", "edgeproxy serve ", "no option -c; here that is: --config"),
        ("node set a --por 3", "edgeproxy node set ", "no option --por; did you mean --port?"),
        ("", "edgeproxy ", "name a command: help, serve, node,"),
        ("node", "edgeproxy node ", "name a command: add, set, show,"),
        ("reload", "edgeproxy ", "reload; here that is: SIGHUP to the proxy"),
        (
            "node list",
            "edgeproxy node ",
            "list; here that is: edgeproxy db show",
        ),
        ("node ad", "edgeproxy node ", "there is no command ad; did you mean add? All: add,"),
        ("config shwo", "edgeproxy config ", "there is no command shwo; did you mean show?"),
        ("statsu", "edgeproxy ", "there is no command statsu; did you mean status? All: help,"),
        ("walk", "edgeproxy ", "there is no command walk; there are help, serve,"),
        ("help statsu", "edgeproxy ", "did you mean status?"),
    ],
)
def test_the_command_that_was_meant_complains(
    capsys: pytest.CaptureFixture[str], words: str, usage: str, message: str
) -> None:
    done = Commands(capsys).run(*words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"usage: {usage}")
    assert message in done.err


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (place, named)
        for place, words in ELSEWHERE.items()
        for word, named in words.items()
        if not word.startswith("-")
    ],
)
def test_a_command_that_is_pointed_to_exists(
    capsys: pytest.CaptureFixture[str], place: str, named: str
) -> None:
    words = named.partition(", ")[0].split()
    if not words[0].islower() or words[0].startswith("-"):
        return  # a signal or an option
    below = words[1:] if words[0] == "edgeproxy" else [*place.split()[1:], *words]
    assert Commands(capsys).run(*below, "--help").code == 0


def test_a_wrong_command_is_shown_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    done = Commands(capsys).run("sta\ntus")
    assert r"there is no command 'sta\ntus'" in done.err


@pytest.mark.parametrize("words", [(), ("node",), ("node", "set"), ("config", "show")])
def test_help_is_what_the_option_prints(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    commands = Commands(capsys)
    helped, asked = commands.run("help", *words), commands.run(*words, "--help")
    assert (helped.code, helped.err) == (0, "")
    assert helped.out == asked.out
    assert helped.out.startswith(" ".join(("usage: edgeproxy", *words)))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {line.split()[0] for line in Commands(capsys).run("help").out.splitlines() if line}
    assert listed >= {"help", *GROUPS}
