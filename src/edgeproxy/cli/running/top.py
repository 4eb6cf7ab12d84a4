"""`edgeproxy top`: show the state of the running proxy and refresh it."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgeproxy.cli.running.options import socket_option
from edgeproxy.cli.running.top_page import SORTS, Status, page

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ALTERNATE, ORDINARY = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
KEYS = {key: column for column, (key, _) in SORTS.items()}
QUIT = "q"
MOST_AT_ONCE_SECS = 1.0
"""Ctrl+C just before a wait is heard after it: no wait is longer, whatever the interval."""
_LEGEND = "q quits; sort by " + ", ".join(f"{key} {column}" for key, column in KEYS.items())


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "top",
        parents=[socket_option()],
        help="watch the running proxy",
        description="Show clients, bytes, refusals and each backend, the busiest first, with "
        f"rates since the last refresh. Keys: {_LEGEND}.",
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, help="seconds between refreshes (default: 1)"
    )
    parser.add_argument("--count", type=int, default=0, help="number of refreshes (0: no end)")
    parser.add_argument(
        "--sort", choices=SORTS, default="load", help="what comes first (default: load)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refresh until `q`, Ctrl+C or `--count`."""
    from edgeproxy.cli.running.ask import ask
    from edgeproxy.errors import UsageError

    if not 0.1 <= arguments.interval <= 3600:
        raise UsageError("--interval takes 0.1 to 3600 seconds")
    if arguments.count < 0:
        raise UsageError(
            f"--count {arguments.count}: allowed is 1 or more refreshes, or 0 for no end"
        )
    on_screen = sys.stdout.isatty()
    sort: str = arguments.sort
    before: Status | None = None
    refreshes = 0
    try:
        with _interrupted_once(), _keys() as has_keys, _screen(wanted=on_screen):
            while True:
                status = ask(arguments, "/status")
                refreshes += 1
                is_last = refreshes == arguments.count
                due = time.monotonic() + arguments.interval
                while True:
                    if on_screen:
                        _draw(before, status, sort, has_keys=has_keys)
                    else:
                        print(page(before, status, sort), end="\n\n", flush=True)
                    if is_last:
                        return 0
                    key = _key_before(due) if has_keys else _nothing_before(due)
                    if key == QUIT:
                        return 0
                    if key not in KEYS:
                        break
                    sort = KEYS[key]
                before = status
    except KeyboardInterrupt:
        return 0


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Let only the first SIGINT interrupt: `timeout` sends two, and the end must be a whole one."""
    import signal

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    yield


def _draw(before: Status | None, status: Status, sort: str, *, has_keys: bool) -> None:
    """Put the page on the terminal, as much of it as fits."""
    import shutil

    width, height = shutil.get_terminal_size()
    coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    lines = page(before, status, sort, width=width, coloured=coloured).split("\n")
    if has_keys:
        lines[4] = _LEGEND[:width]  # the empty line above the table
    body = "".join(f"{line}{CLEAR_LINE}\n" for line in lines[: height - 1])
    sys.stdout.write(f"{HOME}{body}{CLEAR_BELOW}")
    sys.stdout.flush()


@contextmanager
def _screen(*, wanted: bool) -> Iterator[None]:
    """Use the alternate screen of the terminal, if there is one."""
    if not wanted:
        yield
        return
    sys.stdout.write(ALTERNATE)
    try:
        yield
    finally:
        sys.stdout.write(ORDINARY)
        sys.stdout.flush()


@contextmanager
def _keys() -> Iterator[bool]:
    """Let single keys be read, if there is a terminal for both; yield whether there is."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        yield False
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    modes = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield True
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, modes)  # waits for nobody who does not read


def _key_before(due: float) -> str:
    """Return the key that means something and is pressed before that time, else ""."""
    terminal = sys.stdin.fileno()
    while (left_secs := due - time.monotonic()) > 0:
        if not select.select([terminal], [], [], min(left_secs, MOST_AT_ONCE_SECS))[0]:
            continue
        key = os.read(terminal, 1).decode("ascii", "replace")
        if not key:
            return QUIT  # the terminal is gone
        if key == QUIT or key in KEYS:
            return key
    return ""


def _nothing_before(due: float) -> str:
    """Wait until that time."""
    while (left_secs := due - time.monotonic()) > 0:
        select.select([], [], [], min(left_secs, MOST_AT_ONCE_SECS))
    return ""
