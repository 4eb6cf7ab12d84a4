"""Sends requests to the running proxy over its control socket.

Of the configuration only the path of the socket is read, and faults elsewhere are ignored: these
commands work while the configuration file is being edited.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeproxy.errors import EdgeProxyError, UsageError

VARIABLE = "EDGEPROXY_CONTROL_SOCKET"
PLACE = "proxy.control_socket"
TIMEOUT_SECS = 60.0


def ask(path: str, method: str = "GET", **query: str) -> Any:
    """Return the answer to a request. Raises UsageError, EdgeProxyError."""
    import http.client
    import socket
    from urllib.parse import urlencode

    where = _where(os.environ)
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_SECS)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(TIMEOUT_SECS)
        connection.sock.connect(where)
        connection.request(method, f"{path}?{urlencode(query)}" if query else path)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise EdgeProxyError(
            f"the proxy does not answer at {VARIABLE}={where!r}: {reason}"
        ) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise EdgeProxyError(content["error"])
    return content


def _where(environ: Mapping[str, str]) -> str:
    """Return the path of the socket from the environment or the file. Raises UsageError."""
    from edgeproxy.config import file as config_file

    if environ.get(VARIABLE):
        return environ[VARIABLE]
    faults: list[str] = []
    file = environ.get(config_file.FILE_VARIABLE)
    texts = config_file.read(Path(file), faults).texts if file else {}
    if texts.get(PLACE):
        return texts[PLACE]
    unset = f"set {VARIABLE}, here and for the proxy, to the path of a Unix socket"
    raise UsageError("\n  ".join([unset, *faults]))
