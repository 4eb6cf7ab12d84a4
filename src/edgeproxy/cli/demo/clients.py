"""The clients of the demo: the country of each, and the region that must serve it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from edgeproxy.cli.demo.environment import LOOPBACK, POP_REGION
from edgeproxy.errors import EdgeProxyError


@dataclass(frozen=True, slots=True)
class Client:
    """A client.

    Attributes:
        ip: A loopback address; its second number is the country's telephone code.
        country: ISO code, or "" for a client that no override maps.
        name: The country's name.
        region: The region its backend must be in.
    """

    ip: str
    country: str
    name: str
    region: str

    def __str__(self) -> str:
        return f"{self.country} {self.name}".strip()


BRAZILIAN = Client("127.55.0.1", "BR", "Brazil", "sa")
ARGENTINE = Client("127.54.0.1", "AR", "Argentina", "sa")
AMERICAN = Client("127.1.0.1", "US", "United States", "us")
GERMAN = Client("127.49.0.1", "DE", "Germany", "eu")
# The region of these two has no backend, so backends of the POP's region serve them.
JAPANESE = Client("127.81.0.1", "JP", "Japan", POP_REGION)
UNKNOWN = Client(LOOPBACK, "", "unknown", POP_REGION)

CLIENTS = (BRAZILIAN, ARGENTINE, AMERICAN, GERMAN, JAPANESE, UNKNOWN)


def countries() -> dict[str, str]:
    """Return the country code of each client that has one, by the prefix it comes from."""
    return {f"{client.ip}/32": client.country for client in CLIENTS if client.country}


def check_addresses(pops: Iterable[str] = ()) -> None:
    """Raise EdgeProxyError if a client, or one of these POPs, cannot have its address here."""
    owners = {client.ip: "clients" for client in CLIENTS} | dict.fromkeys(pops, "POPs")
    for ip, owner in owners.items():
        with socket.socket() as probe:
            try:
                probe.bind((ip, 0))
            except OSError as error:
                raise EdgeProxyError(
                    f"the demo's {owner} have loopback addresses of their own, but {ip} "
                    f"cannot be used here: {error.strerror}; Linux has all of 127.0.0.0/8, on "
                    f"macOS add each one: sudo ifconfig lo0 alias {ip}"
                ) from None
