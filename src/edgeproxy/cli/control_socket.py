"""Asks the running proxy over its control socket."""

from __future__ import annotations

import json
import os
from typing import Any

from edgeproxy.errors import EdgeProxyError, UsageError

VARIABLE = "EDGEPROXY_CONTROL_SOCKET"
TIMEOUT_SECS = 60.0


def ask(path: str, method: str = "GET", **query: str) -> Any:
    """Return the answer to a request. Raises UsageError, EdgeProxyError."""
    import http.client
    import socket
    from urllib.parse import urlencode

    from edgeproxy import config

    where = config.load(os.environ).config.proxy.control_socket
    if where is None:
        raise UsageError(f"set {VARIABLE}, here and for the proxy, to the path of a Unix socket")
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_SECS)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(TIMEOUT_SECS)
        connection.sock.connect(str(where))
        connection.request(method, f"{path}?{urlencode(query)}" if query else path)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise EdgeProxyError(
            f"the proxy does not answer at {VARIABLE}={str(where)!r}: {reason}"
        ) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise EdgeProxyError(found["error"])
    return found
