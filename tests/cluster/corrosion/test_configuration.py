"""What Corrosion is told."""

from __future__ import annotations

import sqlite3
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.cluster.corrosion.configuration import (
    POPS,
    TLS_FILES,
    Place,
    cluster_id_of,
    configuration_text,
    folder_of,
    schema_text,
)
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.rows import TABLES
from edgeproxy.values import ListenAddress

SETTINGS = ReplicationSettings(
    enabled=True,
    engine="corrosion",
    gossip_addr=ListenAddress("10.50.0.1", 4001),
    bootstrap_peers=(Peer("pop-us.example", 4001), Peer("fd00::1", 5001)),
    db_path=Path('/var/lib/edge "proxy"/state.db'),
    insecure=True,
)
PLACE = Place(folder_of(SETTINGS.db_path), 4999, "secret")


def test_the_settings_are_in_the_file() -> None:
    told = tomllib.loads(configuration_text(SETTINGS, PLACE))
    assert told["db"]["path"] == str(SETTINGS.db_path)
    assert told["db"]["schema_paths"] == [str(PLACE.schema)]
    assert told["gossip"] == {
        "addr": "10.50.0.1:4001",
        "client_addr": "10.50.0.1:0",
        "bootstrap": ["pop-us.example:4001", "[fd00::1]:5001"],
        "plaintext": True,
    }
    assert told["api"] == {"addr": "127.0.0.1:4999", "authz": {"bearer-token": "secret"}}
    assert told["perf"]["max_sync_backoff"] == 5


def test_what_would_lose_deletes_is_never_told() -> None:
    assert "reaper" not in configuration_text(SETTINGS, PLACE)


@pytest.mark.parametrize(
    ("listen", "advertised", "client", "external"),
    [
        ("0.0.0.0", "10.50.0.1", "0.0.0.0:0", "10.50.0.1:4001"),
        ("::", "fd00::1", "[::]:0", "[fd00::1]:4001"),
        ("fd00::1", "", "[fd00::1]:0", None),
    ],
)
def test_other_pops_are_told_where_they_reach_this_one(
    listen: str, advertised: str, client: str, external: str | None
) -> None:
    settings = replace(SETTINGS, gossip_addr=ListenAddress(listen, 4001), advertise_addr=advertised)
    gossip = tomllib.loads(configuration_text(settings, PLACE))["gossip"]
    assert (gossip["client_addr"], gossip.get("external_addr")) == (client, external)


def test_with_certificates_nothing_is_plain() -> None:
    settings = replace(SETTINGS, corrosion_tls_dir=Path("/etc/corrosion"))
    gossip = tomllib.loads(configuration_text(settings, PLACE))["gossip"]
    files = [*gossip["tls"].values(), *gossip["tls"].pop("client").values()]
    assert not gossip["plaintext"]
    assert {Path(file).name for file in files if isinstance(file, str)} == set(TLS_FILES)
    assert "insecure" not in gossip["tls"]


def test_the_tables_are_those_that_are_replicated_and_their_keys_are_never_null() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(schema_text())
    for name, table in TABLES.items():
        columns = database.execute(f"PRAGMA table_info({name})").fetchall()
        assert [column[1] for column in columns] == [*table.keys, *table.columns]
        assert [column[1] for column in columns if column[3]] == list(table.keys)
        assert {column[2] for column in columns if column[1] in table.columns} == {""}
    assert database.execute(f"SELECT * FROM {POPS}").fetchall() == []


def test_clusters_of_other_names_have_other_numbers() -> None:
    numbers = {cluster_id_of(f"cluster-{number}") for number in range(100)}
    assert len(numbers) == 100
    assert 0 < min(numbers) <= max(numbers) < 1 << 16
    assert cluster_id_of("edgeproxy") == cluster_id_of("edgeproxy")
