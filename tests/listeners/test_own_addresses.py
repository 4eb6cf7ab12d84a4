"""What this proxy listens on is looked up anew each time."""

from __future__ import annotations

import socket
from pathlib import Path

from edgeproxy.listeners.own_addresses import OwnAddresses


def test_every_socket_counts_with_the_port_that_it_is_bound_to(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("0.0.0.0", 0)) as any_one,
        socket.socket(socket.AF_UNIX) as path,
    ):
        path.bind(str(tmp_path / "socket"))
        sockets = {"one": one}
        addresses = OwnAddresses(lambda: sockets)
        place = one.getsockname()
        assert addresses.look().places == {place: "one"}
        sockets |= {"any": any_one, "path": path}
        own = addresses.look()
        assert own.places == {place: "one", any_one.getsockname(): "any"}
        assert own.what_is_at("127.7.7.7", any_one.getsockname()[1]) == "any"
        assert own.what_is_at("127.7.7.7", place[1]) is None
    assert addresses.look().places == {}
