"""`edgeproxy demo`: show the main job on processes and connections of this machine.

The exit code is 0 only if every step happened as printed. However the demo ends, it leaves no
process and no file.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.cli.demo.environment import Stage
    from edgeproxy.cli.demo.output import Output
    from edgeproxy.cli.demo.signals import StopSignals

LOG_LINES_SHOWN = 10
POPS = range(2, 10)


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "demo",
        help="show the main job on this machine",
        description="Start nine sample backends and a proxy on loopback, send clients from "
        "several countries through it, disable a node, kill a backend, stop the proxy. Every "
        "step is verified; the exit code is 0 only if all of it happened as printed.",
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--keep",
        action="store_true",
        help="keep it running before the last step, and print commands to try",
    )
    ways.add_argument(
        "--pops",
        metavar="N",
        type=int,
        choices=POPS,
        help="show instead how N POPs, 2 to 9, keep one routing table: edits at any of them, a "
        "partition and its end, a killed agent",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show everything. Exit code 1 if a step did not happen, 128+N if signal N ended it."""
    import time

    from edgeproxy.cli.demo.output import Output
    from edgeproxy.cli.demo.signals import Interruption, StopSignals

    began = time.monotonic()
    output = Output(sys.stdout)
    signals = StopSignals()
    with signals.caught():
        try:
            if arguments.pops:
                code = _show_pops(signals, output, arguments.pops)
            else:
                code = _show(signals, output, keep=arguments.keep)
        except Interruption as interruption:
            print(f"edgeproxy: demo ended by {interruption.name}", file=sys.stderr)
            return 128 + interruption.number
    if not code and not arguments.keep:
        output.ending(f"Done in {time.monotonic() - began:.1f} s; nothing is left running.")
    return code


def _show(signals: StopSignals, output: Output, *, keep: bool) -> int:
    from edgeproxy.cli.demo.environment import Environment
    from edgeproxy.cli.demo.steps import Steps

    environment = Environment(signals, is_kept=keep)
    steps = Steps(environment, output)

    def show() -> None:
        steps.start()
        steps.geography()
        steps.disable()
        steps.failover()
        if keep:
            steps.keep(signals)
        else:
            steps.drain()

    return _run(environment, output, signals, show, steps.hang_up)


def _show_pops(signals: StopSignals, output: Output, count: int) -> int:
    from edgeproxy.cli.demo.cluster.environment import ClusterEnvironment
    from edgeproxy.cli.demo.cluster.steps import ClusterSteps

    environment = ClusterEnvironment(signals)
    steps = ClusterSteps(environment, output)

    def show() -> None:
        steps.start(count)
        steps.fill()
        steps.change()
        steps.part()
        steps.crash()

    return _run(environment, output, signals, show, steps.hang_up)


def _run(
    stage: Stage,
    output: Output,
    signals: StopSignals,
    show: Callable[[], None],
    hang_up: Callable[[], None],
) -> int:
    """Show the steps on a stage, and clear it afterwards; return the exit code."""
    from edgeproxy.cli.demo.expected import UnmetError

    try:
        with signals.allowed():
            stage.open()
            show()
    except UnmetError as error:
        output.unmet(error)
        for proxy in stage.proxies:
            if lines := proxy.log_lines()[-LOG_LINES_SHOWN:]:
                output.note(f"the last log lines of {proxy.name}:")
                output.aside("\n".join(lines))
        return 1
    finally:
        hang_up()
        stage.close()
    return 0
