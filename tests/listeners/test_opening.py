"""Listening sockets are opened or taken over, and no file of another process is removed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeproxy.errors import EdgeProxyError
from edgeproxy.listeners.opening import (
    SOLE_LISTENER,
    Address,
    OpenSocket,
    cannot_listen,
    open_all,
    open_socket,
)
from edgeproxy.listeners.spec import UnixAddress
from edgeproxy.values import ListenAddress
from tests.events import events_of

ANY_PORT = ListenAddress("127.0.0.1", 0)


class Sockets:
    """Opens listening sockets as another process would, and closes everything at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def tcp(self) -> socket.socket:
        return self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def unix(self, path: Path) -> socket.socket:
        listening = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen()
        return listening

    def open_all(
        self,
        addresses: dict[str, Address],
        inherited: dict[str, socket.socket] | None = None,
        activated: list[socket.socket] | None = None,
    ) -> dict[str, OpenSocket]:
        opened = open_all(addresses, inherited or {}, activated or [])
        for each in opened.values():
            self._stack.callback(each.close)
        return opened


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


def address_of(listening: socket.socket) -> ListenAddress:
    return ListenAddress(*listening.getsockname())


def accepts(address: Address) -> bool:
    """Return whether a client can connect."""
    assert isinstance(address, ListenAddress)
    try:
        socket.create_connection(address, 20).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_new_socket_has_the_port_that_the_system_chose(sockets: Sockets) -> None:
    opened = sockets.open_all({"a": ANY_PORT})["a"]
    bound = opened.bound_address()
    assert isinstance(bound, ListenAddress)
    assert bound.port > 0
    assert not opened.listening.getblocking()
    assert accepts(bound)


def test_sockets_of_a_predecessor_are_taken_by_name(sockets: Sockets) -> None:
    first, second, gone = sockets.tcp(), sockets.tcp(), sockets.tcp()
    inherited = {"b": second, "a": first, "gone": gone}
    opened = sockets.open_all({"a": ANY_PORT, "b": ANY_PORT}, inherited)
    assert (opened["a"].listening, opened["b"].listening) == (first, second)
    assert not first.getblocking()
    assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert gone.fileno() == -1


def test_the_sole_listener_of_a_predecessor_is_the_first(sockets: Sockets) -> None:
    old = sockets.tcp()
    opened = sockets.open_all({"a": ANY_PORT, "b": ANY_PORT}, {SOLE_LISTENER: old})
    assert opened["a"].listening is old
    assert opened["b"].listening is not old


def test_sockets_of_systemd_are_taken_by_address_and_before_those_of_a_predecessor(
    sockets: Sockets,
) -> None:
    old, given = sockets.tcp(), sockets.tcp()
    name = str(address_of(given))
    opened = sockets.open_all({"a": ANY_PORT, name: address_of(given)}, {name: old}, [given])
    assert opened[name].listening is given
    assert opened["a"].listening not in (old, given)


def test_the_first_takes_a_socket_of_systemd_with_another_address(sockets: Sockets) -> None:
    second, other, unused = sockets.tcp(), sockets.tcp(), sockets.tcp()
    name, unused_name = str(address_of(second)), str(address_of(unused))
    addresses: dict[str, Address] = {"a": ANY_PORT, name: address_of(second)}
    with events_of("listeners") as events:
        opened = sockets.open_all(addresses, {}, [second, other, unused])
    assert (opened["a"].listening, opened[name].listening) == (other, second)
    assert opened["a"].bound_address() == address_of(other)
    assert [each["listen"] for each in events.named("socket_unused")] == [unused_name]
    assert unused.fileno() == -1


def test_a_failure_closes_what_was_opened_before(sockets: Sockets, tmp_path: Path) -> None:
    taken, path = sockets.tcp(), tmp_path / "socket"
    addresses: dict[str, Address] = {"u": UnixAddress(str(path)), "t": address_of(taken)}
    with pytest.raises(EdgeProxyError, match=r"cannot listen on 127.*EDGEPROXY_LISTENERS"):
        sockets.open_all(addresses)
    assert not path.exists()


def test_a_failure_leaves_the_files_of_a_predecessor(sockets: Sockets, tmp_path: Path) -> None:
    taken, path = sockets.tcp(), tmp_path / "socket"
    addresses: dict[str, Address] = {"u": UnixAddress(str(path)), "t": address_of(taken)}
    with pytest.raises(EdgeProxyError):
        sockets.open_all(addresses, {"u": sockets.unix(path)})
    assert path.exists()


def test_the_file_of_a_unix_socket_goes_with_it(sockets: Sockets, tmp_path: Path) -> None:
    paths = [tmp_path / "new", tmp_path / "inherited"]
    new = open_socket(UnixAddress(str(paths[0])))
    assert new.bound_address() == new.address
    address = UnixAddress(str(paths[1]))
    inherited = sockets.open_all({"u": address}, {"u": sockets.unix(paths[1])})["u"]
    for opened, path in zip((new, inherited), paths, strict=True):
        assert path.exists()
        opened.close()
        assert not path.exists()


def test_files_that_another_process_answers_for_stay(sockets: Sockets, tmp_path: Path) -> None:
    kept, replaced = (open_socket(UnixAddress(str(tmp_path / name))) for name in "kr")
    kept.close(keeps_file=True)
    (tmp_path / "r").unlink()
    sockets.unix(tmp_path / "r")
    replaced.close()
    given = sockets.unix(tmp_path / "s")
    address = UnixAddress(str(tmp_path / "s"))
    sockets.open_all({str(address): address}, {}, [given])[str(address)].close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["k", "r", "s"]


@pytest.mark.parametrize(
    ("port", "error", "is_named"),
    [
        (443, PermissionError(13, "Permission denied"), True),
        (1023, PermissionError(13, "Permission denied"), True),
        (1024, PermissionError(13, "Permission denied"), False),
        (443, OSError(98, "Address already in use"), False),
    ],
)
def test_a_port_that_needs_a_capability_names_it(port: int, error: OSError, is_named: bool) -> None:
    said = str(cannot_listen(ListenAddress("0.0.0.0", port), error, "VARIABLE"))
    assert ("CAP_NET_BIND_SERVICE" in said) is is_named
    assert said.startswith(f"cannot listen on 0.0.0.0:{port}: {error.strerror}; ")
    assert said.endswith("choose another address with VARIABLE")
    assert ("ss -ltnp" in said) is (error.errno == 98)
