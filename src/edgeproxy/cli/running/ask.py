"""Sends requests to the running proxy over its control socket.

Of the configuration only the path of the socket is read, and faults elsewhere are ignored: these
commands work while the configuration file is being edited.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeproxy.control.admin.socket_path import OFF, VARIABLE, default_paths
from edgeproxy.errors import EdgeProxyError, UsageError

FILE_KEY = "proxy.control_socket"
TIMEOUT_SECS = 60.0


class NotFoundError(EdgeProxyError):
    """The proxy does not have what the request names."""


def ask(arguments: argparse.Namespace, path: str, method: str = "GET", **query: str) -> Any:
    """Return the answer to a request. Raises UsageError, EdgeProxyError, NotFoundError."""
    import http.client
    from urllib.parse import urlencode

    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_SECS)
    connection.sock, where = _connected(arguments.socket, os.environ)
    try:
        connection.request(method, f"{path}?{urlencode(query)}" if query else path)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EdgeProxyError(f"the proxy does not answer at {where!r}: {_reason(error)}") from None
    finally:
        connection.close()
    if answer.status == http.client.NOT_FOUND:
        raise NotFoundError(content["error"])
    if answer.status != 200:
        raise EdgeProxyError(content["error"])
    return content


def _connected(option: str | None, environ: Mapping[str, str]) -> tuple[socket.socket, str]:
    """Return a connection to the proxy, and its path. Raises UsageError, EdgeProxyError."""
    faults: list[str] = []
    paths, is_default = _places(option, environ, faults)
    for path in paths:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT_SECS)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            faults.append(f"{path}: {_reason(error, path)}")
        else:
            return connection, path
    advice = f" If so, name its socket with --socket or {VARIABLE}." if is_default else ""
    lines = ["no proxy answers. Is one running, and as this user?" + advice, *faults]
    raise EdgeProxyError("\n  ".join(lines))


def _places(
    option: str | None, environ: Mapping[str, str], faults: list[str]
) -> tuple[Sequence[str], bool]:
    """Return where the socket may be, and whether these are the default paths.

    Adds what is wrong with the file to `faults`. Raises UsageError if there is to be no socket.
    """
    if option:
        return [option], False
    chosen, source = environ.get(VARIABLE), f"{VARIABLE}='{OFF}'"
    file = environ.get("EDGEPROXY_CONFIG")
    if not chosen and file:
        from edgeproxy.config import file as config_file

        chosen = config_file.read(Path(file), faults).texts.get(FILE_KEY)
        source = f"{file}: {FILE_KEY} = '{OFF}'"
    if chosen == OFF:
        raise UsageError(
            f"{source}: the proxy has no control socket; remove that, here and for the proxy, or "
            "name a socket with --socket"
        )
    if chosen:
        return [chosen], False
    return [str(path) for path in default_paths(environ)], True


def _reason(error: Exception, path: str = "") -> str:
    """Return why a socket does not answer, as a person says it."""
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there any more"
    if isinstance(error, PermissionError):
        return f"only the user of the proxy may ask it{_owner(path)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _owner(path: str) -> str:
    """Return who may use a socket and how, as the end of a sentence; "" if that is not told."""
    import pwd

    for place in (path, os.path.dirname(path)):
        try:
            owner = pwd.getpwuid(os.stat(place).st_uid).pw_name
        except (OSError, KeyError):
            continue
        return f": sudo -u {owner} edgeproxy …"
    return ""
