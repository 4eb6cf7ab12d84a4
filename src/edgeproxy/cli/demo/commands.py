"""The commands that `edgeproxy demo --keep` prints: to be copied into another shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def commands_to_try(
    edgeproxy: str, listen: tuple[str, int], variables: Mapping[str, str], log: str
) -> str:
    """Return the commands as text.

    `edgeproxy` is the command as the user types it. `variables` are the proxy's variables, and
    `log` is its log file.
    """
    host, port = listen
    url = f"http://{host}:{port}"
    exports = [
        f"export {name}={shlex.quote(variables[name])}"
        for name in ("EDGEPROXY_DB_PATH", "EDGEPROXY_GEO_OVERRIDES", "EDGEPROXY_REGION")
    ]
    parts = {
        "Be a client (127.55.0.1 Brazil, 127.54.0.1 Argentina, 127.1.0.1 US, 127.49.0.1\n"
        "Germany, 127.81.0.1 Japan, anything else unknown):": [
            f"curl --interface 127.55.0.1 {url}",
            f"nc -s 127.49.0.1 {host} {port}  # each line is answered",
            f"curl -N --interface 127.1.0.1 {url}/lines/100/20  # slowly",
        ],
        "Change the nodes and ask why:": [
            *exports,
            f"{edgeproxy} db show",
            f"{edgeproxy} node weight sa-node-3 3",
            f"{edgeproxy} explain 127.81.0.1",
        ],
        "Watch the proxy:": [f"tail -f {shlex.quote(log)}"],
    }
    return "\n".join(
        "\n".join([about, *(f"  {command}" for command in commands), ""])
        for about, commands in parts.items()
    )
