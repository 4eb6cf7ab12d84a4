"""`edgeproxy demo`: show the main job on processes and connections of this machine.

Exit code 0 only if every step really happened as printed. However it ends, no process and
no file of it is left.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeproxy.cli.demo.interruption import Interruptions
    from edgeproxy.cli.demo.screen import Screen

LOG_LINES_SHOWN = 10


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "demo",
        help="show the main job on this machine",
        description="Start nine sample backends and a proxy on loopback, send clients from "
        "several countries through it, disable a node, kill a backend, stop the proxy. Every "
        "step is verified; the exit code is 0 only if all of it happened as printed.",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave it running before the last step, with commands to play with",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show everything. Exit code 1 if a step did not happen, 128+N if signal N ended it."""
    import time

    from edgeproxy.cli.demo.interruption import Interruption, Interruptions
    from edgeproxy.cli.demo.screen import Screen

    began = time.monotonic()
    screen = Screen(sys.stdout)
    interruptions = Interruptions()
    with interruptions.caught():
        try:
            code = _show(interruptions, screen, keep=arguments.keep)
        except Interruption as interruption:
            print(f"edgeproxy: demo ended by {interruption.name}", file=sys.stderr)
            return 128 + interruption.number
    if not code and not arguments.keep:
        screen.ending(f"Done in {time.monotonic() - began:.1f} s; nothing is left running.")
    return code


def _show(interruptions: Interruptions, screen: Screen, *, keep: bool) -> int:
    from edgeproxy.cli.demo.expectation import UnmetError
    from edgeproxy.cli.demo.stage import Stage
    from edgeproxy.cli.demo.steps import Steps

    stage = Stage(interruptions)
    steps = Steps(stage, screen)
    try:
        with interruptions.allowed():
            stage.open()
            steps.start()
            steps.geography()
            steps.disable()
            steps.failover()
            if keep:
                steps.keep(interruptions)
            else:
                steps.drain()
    except UnmetError as error:
        screen.unmet(error)
        lines = stage.log_lines()[-LOG_LINES_SHOWN:]
        if lines:
            screen.note("the proxy's last log lines:")
            screen.aside("\n".join(lines))
        return 1
    finally:
        steps.hang_up()
        stage.close()
    return 0
