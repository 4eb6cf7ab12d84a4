"""The `edgeproxy` command: one file per group of commands.

Exit codes: 0 success; 1 the operation failed; 2 bad usage or a bad value. Errors go to stderr.
Each command imports what it needs only when it runs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import MutableMapping, Sequence

from edgeproxy.cli.parser import Parser
from edgeproxy.cli.version import add_version
from edgeproxy.errors import EdgeProxyError, UsageError, reason_of
from edgeproxy.log import STDERR

FILE_VARIABLE = "EDGEPROXY_CONFIG"
DEFAULT_FILE = "/etc/edgeproxy/edgeproxy.toml"

GROUPS = {
    "serve": "serve",
    "node": "database.node",
    "db": "database.db",
    "route": "database.route",
    "explain": "running.explain",
    "status": "running.status",
    "sessions": "running.status",
    "top": "running.top",
    "drain": "running.drain",
    "undrain": "running.drain",
    "upgrade": "running.upgrade",
    "cluster": "cluster",
    "register": "register",
    "config": "config",
    "demo": "demo.command",
}
"""The module of each command."""


def _parser(argv: Sequence[str]) -> Parser:
    """Return a parser for this command line. It knows only the command that the line names."""
    named = argv[:1] if argv and argv[0] in GROUPS else GROUPS
    parser = Parser(
        prog="edgeproxy",
        description="Geo-aware TCP load balancer for edge points of presence.",
    )
    add_version(parser)
    commands = parser.add_subparsers(
        title="commands",
        metavar="COMMAND",
        required=True,
        prog=parser.prog,  # without it, argparse builds a formatter just for this
    )
    if named is GROUPS:
        words = commands.add_parser("help", help="print the help of a command")
        words.add_argument("command", nargs="*", help="such as node add")
    for group in dict.fromkeys(GROUPS[name] for name in named):
        importlib.import_module(f"edgeproxy.cli.{group}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `edgeproxy` command and return its exit code."""
    _open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal may not be able to show every id
    _find_configuration_file(os.environ)
    words = sys.argv[1:] if argv is None else argv
    if words[:1] and words[0] == "help":
        words = [*words[1:], "--help"]
    arguments = _parser(words).parse_args(words)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 2
    except EdgeProxyError as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _forget_output()  # the reader has closed the pipe
        return 1
    except OSError as error:
        what = error.filename
        if what is None:
            _forget_output()
            what = "the output could not be written"
        print(f"edgeproxy: {what}: {error.strerror or reason_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _find_configuration_file(environ: MutableMapping[str, str], path: str = DEFAULT_FILE) -> None:
    """Let every command read the file of the service, unless the environment says otherwise.

    An empty variable asks for no file. The name goes into the environment, where a reload and a
    successor find it.
    """
    if FILE_VARIABLE not in environ and os.path.exists(path):
        environ[FILE_VARIABLE] = path


def _open_standard_descriptors() -> None:
    """Open closed standard streams on /dev/null, so that no other file gets their numbers.

    Python has no object for a stream that was closed, and what is printed there must not fail.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(opened)
    for descriptor, name in ((1, "stdout"), (STDERR, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", closefd=False))


def _forget_output() -> None:
    """Redirect stdout to /dev/null, so that the flush at exit cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def serve_main() -> int:
    """Run the `edge-proxy` command, which is `edgeproxy serve`."""
    return main(["serve", *sys.argv[1:]])
