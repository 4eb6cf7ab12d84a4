"""The settings of replication."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.cluster.settings import Peer, ReplicationSettings, faults_of, peers
from edgeproxy.values import BadValueError, ListenAddress, Secret

DATABASE = Path("routing.db")
LOOPBACK = ReplicationSettings(
    enabled=True,
    gossip_addr=ListenAddress("127.0.0.1", 4001),
    transport_addr=ListenAddress("127.0.0.1", 4002),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.50.0.1", [Peer("10.50.0.1", 4001)]),
        (
            "10.50.0.1:5001, Pop-US.example.",
            [Peer("10.50.0.1", 5001), Peer("pop-us.example", 4001)],
        ),
        ("pop-us.example:4001", [Peer("pop-us.example", 4001)]),
        (
            "[fd00::1]:5001,fd00::2,[fd00::3]",
            [Peer("fd00::1", 5001), Peer("fd00::2", 4001), Peer("fd00::3", 4001)],
        ),
        (" , ", []),
    ],
)
def test_peers_are_addresses_and_names(text: str, expected: list[Peer]) -> None:
    assert peers(text) == tuple(expected)


@pytest.mark.parametrize(
    "text", ["a b", "10.0.0.1:0", "10.0.0.1:70000", "x:y", "[fd00::1]:", "300.1.1.1"]
)
def test_what_is_no_peer_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(BadValueError, match="allowed are addresses"):
        peers(text)


def test_loopback_needs_no_key() -> None:
    assert faults_of(LOOPBACK, DATABASE, uses_server=False) == []


def test_open_addresses_need_a_key() -> None:
    settings = ReplicationSettings(enabled=True)
    faults = faults_of(settings, DATABASE, uses_server=False)
    assert len(faults) == 2
    assert all("edgeproxy cluster keygen" in fault for fault in faults)
    for better in ({"insecure": True}, {"keys": Secret("k")}, {"key_file": Path("k")}):
        assert faults_of(replace(settings, **better), DATABASE, uses_server=False) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, None),
        ({"gossip_addr": ListenAddress("10.50.0.1", 4001)}, "without TLS anybody"),
        ({"gossip_addr": ListenAddress("10.50.0.1", 4001), "insecure": True}, None),
        (
            {
                "gossip_addr": ListenAddress("10.50.0.1", 4001),
                "corrosion_tls_dir": Path("tls"),
            },
            None,
        ),
        ({"gossip_addr": ListenAddress("0.0.0.0", 4001), "insecure": True}, "name the address"),
        (
            {
                "gossip_addr": ListenAddress("0.0.0.0", 4001),
                "insecure": True,
                "advertise_addr": "10.50.0.1",
            },
            None,
        ),
        ({"transport_addr": ListenAddress("0.0.0.0", 4001)}, None),
        ({"keys": Secret("k")}, "certificates instead"),
        ({"key_file": Path("k")}, "certificates instead"),
    ],
)
def test_corrosion_has_one_address_and_certificates(
    change: dict[str, object], what: str | None
) -> None:
    settings = replace(LOOPBACK, engine="corrosion", **change)  # type: ignore[arg-type]
    faults = faults_of(settings, DATABASE, uses_server=False)
    assert len(faults) == (what is not None)
    assert all(str(what) in fault for fault in faults)


@pytest.mark.parametrize(
    ("settings", "uses_server", "what"),
    [
        (LOOPBACK, True, "POSTGRES_ENABLED"),
        (replace(LOOPBACK, db_path=Path("./routing.db")), False, "that is the routing database"),
        (replace(LOOPBACK, keys=Secret("k"), key_file=Path("f")), False, "both set"),
        (replace(LOOPBACK, transport_addr=LOOPBACK.gossip_addr), False, "need two"),
    ],
)
def test_contradictions_are_named(
    settings: ReplicationSettings, uses_server: bool, what: str
) -> None:
    (fault,) = faults_of(settings, DATABASE, uses_server=uses_server)
    assert what in fault


def test_nothing_is_wrong_while_replication_is_off() -> None:
    off = ReplicationSettings(db_path=DATABASE)
    assert faults_of(off, DATABASE, uses_server=True) == []
