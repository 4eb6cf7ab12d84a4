"""`edgeproxy serve`, also installed as `edge-proxy`: run the proxy until it is stopped.

An option is its variable, written into the environment: there a reload and a successor find it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from edgeproxy.cli.version import add_version

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from edgeproxy.config.load import Config

OPTIONS = {
    "listen": ("EDGEPROXY_LISTEN_ADDR", "ADDRESS:PORT", "address to accept clients on"),
    "db": ("EDGEPROXY_DB_PATH", "PATH", "the routing database, a file"),
    "region": ("EDGEPROXY_REGION", "CODE", "the region of this POP"),
    "config": ("EDGEPROXY_CONFIG", "PATH", "a TOML file with settings"),
}
"""The variable of each option, what it takes, and its help."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser = commands.add_parser(
        "serve",
        help="run the proxy",
        description="Run the proxy. All its settings are EDGEPROXY_* variables, or in a file; see "
        "`edgeproxy config show`. An option wins over both. SIGTERM lets open connections finish, "
        "SIGHUP reads the database, the geo files and the file of settings again at once.",
    )
    for name, (variable, takes, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=takes, help=f"{text} (default: {variable})")
    add_version(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal stops the proxy."""
    import os

    from edgeproxy.errors import EdgeProxyError, UsageError

    try:
        return _serve(arguments, os.environ)
    except EdgeProxyError as error:
        if not _logs_json(os.environ):
            raise
        _report(error)
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if not _logs_json(os.environ):
            raise
        _report(error)
        return 1


def _serve(arguments: argparse.Namespace, environ: MutableMapping[str, str]) -> int:
    from edgeproxy.config import load as config
    from edgeproxy.process import app

    for name, (variable, _, _) in OPTIONS.items():
        if (text := getattr(arguments, name)) is not None:
            _check(name, variable, text)
            environ[variable] = text
    loaded = config.load(environ)
    _check_effect(arguments, loaded.config)
    return app.serve(loaded)


def _logs_json(environ: Mapping[str, str]) -> bool:
    """Return whether the log is to be JSON, as far as a configuration with faults says so."""
    from pathlib import Path

    from edgeproxy.config import file as config_file

    chosen = environ.get("EDGEPROXY_LOG_FORMAT")
    if not chosen and (path := environ.get(config_file.FILE_VARIABLE)):
        chosen = config_file.read(Path(path), []).texts.get("log.format")
    return chosen == "json"


def _report(error: Exception) -> None:
    """Write the last line of the log: why the proxy ends."""
    from edgeproxy import log
    from edgeproxy.errors import EdgeProxyError

    log.start(log.LogSettings("json"))
    try:
        if isinstance(error, EdgeProxyError):
            log.EventLog("app").error("fatal", reason=str(error))
        else:
            log.EventLog("app").bug("fatal", reason=repr(error))
    finally:
        log.stop()


def _check(name: str, variable: str, text: str) -> None:
    """Raise UsageError, which names the option, for a value that its setting does not allow."""
    from edgeproxy.config.table import SETTINGS
    from edgeproxy.errors import UsageError
    from edgeproxy.values import BadValueError

    if not text:
        raise UsageError(f"--{name} is empty: it takes {OPTIONS[name][1]}")
    parse = next((each.parse for each in SETTINGS if each.variable == variable), str)
    try:
        parse(text)
    except BadValueError as bad:
        raise UsageError(f"--{name} {text!r}: {bad}") from None


def _check_effect(arguments: argparse.Namespace, config: Config) -> None:
    """Raise UsageError for an option that another setting leaves without effect."""
    from edgeproxy.errors import UsageError

    if arguments.listen and config.listeners.listen:
        raise UsageError("--listen has no effect next to EDGEPROXY_LISTENERS: name it there")
    if arguments.db and config.postgres.enabled:
        raise UsageError("--db has no effect next to EDGEPROXY_POSTGRES_ENABLED: unset that")
