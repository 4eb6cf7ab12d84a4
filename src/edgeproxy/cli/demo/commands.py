"""The commands that `edgeproxy demo --keep` prints: to be copied into another shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """Where the proxy of the demo can be reached.

    Attributes:
        client: The address for clients.
        api: The address of the API.
        metrics: The address of the metrics page.
        log: The path of its log file.
    """

    client: str
    api: str
    metrics: str
    log: str


def commands_to_try(edgeproxy: str, places: Places, variables: Mapping[str, str]) -> str:
    """Return the commands as text.

    `edgeproxy` is the command as the user types it. `variables` are the proxy's variables.
    """
    host, _, port = places.client.rpartition(":")
    url = f"http://{places.client}"
    exports = [
        f"export {name}={shlex.quote(variables[name])}"
        for name in (
            "EDGEPROXY_DB_PATH",
            "EDGEPROXY_GEO_OVERRIDES",
            "EDGEPROXY_REGION",
            "EDGEPROXY_CONTROL_SOCKET",
        )
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
        "Ask and tell the proxy:": [
            f"{edgeproxy} status",
            f"{edgeproxy} top",
            f"{edgeproxy} sessions",
            f"{edgeproxy} explain --live 127.55.0.1",
            f"{edgeproxy} drain sa-node-1",
            f"{edgeproxy} undrain sa-node-1",
        ],
        "The same over HTTP, and the metrics:": [
            f"curl http://{places.api}/api/v1/backends",
            f"curl 'http://{places.api}/api/v1/explain?client=127.49.0.1'",
            f"curl http://{places.metrics}/metrics",
        ],
        "Watch the proxy:": [f"tail -f {shlex.quote(places.log)}"],
    }
    return "\n".join(
        "\n".join([about, *(f"  {command}" for command in commands), ""])
        for about, commands in parts.items()
    )
