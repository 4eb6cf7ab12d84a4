"""`edgeproxy top`: show the state of the running proxy and refresh it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from edgeproxy.cli.running.options import socket_option

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ALTERNATE, ORDINARY = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"

Status = Mapping[str, Any]


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "top",
        parents=[socket_option()],
        help="watch the running proxy",
        description="Show clients, bytes, refusals and each backend, the busiest first, with "
        "rates since the last refresh. Ends with Ctrl+C.",
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, help="seconds between refreshes (default: 1)"
    )
    parser.add_argument("--count", type=int, default=0, help="number of refreshes (0: no end)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refresh until Ctrl+C or `--count`."""
    import shutil
    import signal

    from edgeproxy.cli.running.ask import ask
    from edgeproxy.errors import UsageError

    if not 0.1 <= arguments.interval <= 3600:
        raise UsageError("--interval takes 0.1 to 3600 seconds")
    on_screen = sys.stdout.isatty()
    before: Status | None = None
    refreshes = 0
    try:
        if on_screen:
            sys.stdout.write(ALTERNATE)
        while True:
            status = ask(arguments, "/status")
            lines = page(before, status).split("\n")
            if on_screen:
                height = shutil.get_terminal_size().lines
                body = "".join(f"{line}{CLEAR_LINE}\n" for line in lines[: height - 1])
                sys.stdout.write(f"{HOME}{body}{CLEAR_BELOW}")
            else:
                print("\n".join(lines), end="\n\n")
            sys.stdout.flush()
            before = status
            refreshes += 1
            if refreshes == arguments.count:
                return 0
            signal.sigtimedwait([], arguments.interval)
    except KeyboardInterrupt:
        return 0
    finally:
        if on_screen:
            sys.stdout.write(ORDINARY)


def page(before: Status | None, status: Status) -> str:
    """Return the page as text. Rates are since `before`."""
    from edgeproxy.cli.running.status import size, state_of
    from edgeproxy.cli.table import text_table

    secs = status["uptime_secs"] - before["uptime_secs"] if before else 0.0
    earlier = {backend["id"]: backend for backend in before["backends"]} if before else {}

    def rate(now: Status, then: Status | None, name: str) -> float:
        return max(now[name] - then[name], 0) / secs if then and secs > 0 else 0.0

    refused = sum(status["refused"].values()) - sum((before or status)["refused"].values())
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(status["refused"].items()))
    clients = (
        f"{status['active']} now, {rate(status, before, 'connections'):.0f}/s, "
        f"{status['connections']} so far; failovers {status['failovers']}; "
        f"bindings {status['bindings']}"
    )
    bytes_in, bytes_out = (rate(status, before, name) for name in ("bytes_in", "bytes_out"))
    head = f"edgeproxy {status['version']} ({status['engine']}) in {status['region']}"
    lines = [
        f"{head}, up {status['uptime_secs']:.0f} s, table {status['table_version']}",
        f"clients  {clients}",
        f"bytes    {size(bytes_in)}/s in, {size(bytes_out)}/s out",
        f"refused  {refused / secs if secs > 0 else 0:.0f}/s; {reasons or 'none so far'}",
        "",
    ]
    backends = sorted(status["backends"], key=lambda backend: (-backend["active"], backend["id"]))
    rows = [
        (
            backend["id"],
            backend["region"],
            f"{backend['active']}/{backend['soft_limit']}/{backend['hard_limit'] or '∞'}",
            f"{rate(backend, earlier.get(backend['id']), 'connections'):.0f}",
            f"{size(rate(backend, earlier.get(backend['id']), 'bytes_in'))}",
            f"{size(rate(backend, earlier.get(backend['id']), 'bytes_out'))}",
            f"{backend['rtt_secs'] * 1000:.1f}",
            backend["errors"],
            state_of(backend),
        )
        for backend in backends
    ]
    headers = ("backend", "region", "load", "new/s", "in/s", "out/s", "rtt ms", "errors", "state")
    return "\n".join([*lines, text_table(headers, rows)])
