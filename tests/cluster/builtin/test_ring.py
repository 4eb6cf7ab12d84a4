"""The keys in force follow their file; the last good ones stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin.keys import new_key
from edgeproxy.cluster.builtin.ring import Ring
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.errors import ConfigError
from edgeproxy.values import Secret

ONE, TWO = new_key().reveal(), new_key().reveal()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{ONE}\n")
    return path


@pytest.fixture
def ring(file: Path) -> Ring:
    return Ring(ReplicationSettings(key_file=file))


def test_the_keys_of_the_settings_are_used() -> None:
    ring = Ring(ReplicationSettings(keys=Secret(f"{ONE},{TWO}")))
    assert len(list(ring.keys)) == 2
    assert not ring.is_insecure
    assert [line.endswith("(used)") for line in ring.shown()] == [True, False]


def test_without_keys_clusters_of_different_names_have_different_ones() -> None:
    settings = ReplicationSettings(cluster_name="one")
    one, same = Ring(settings), Ring(settings)
    other = Ring(replace(settings, cluster_name="other"))
    assert one.is_insecure
    assert one.shown() == same.shown() != other.shown()


def test_a_changed_file_is_read_again(ring: Ring, file: Path) -> None:
    before = ring.keys.primary.id
    assert not ring.refresh()
    file.write_text(f"{TWO}\n{ONE}\n")
    assert ring.refresh()
    assert ring.keys.primary.id != before
    assert before in {key.id for key in ring.keys}


@pytest.mark.parametrize("content", ["", "no key\n"])
def test_a_file_that_is_spoiled_leaves_the_last_keys(ring: Ring, file: Path, content: str) -> None:
    before = ring.shown()
    file.write_text(content)
    assert not ring.refresh()
    assert ring.shown() == before
    with pytest.raises(ConfigError):
        ring.refresh(is_asked=True)


def test_what_is_shown_of_a_key_is_not_the_key(ring: Ring) -> None:
    assert ONE not in "".join(ring.shown()) + repr(ring.keys)


def test_keys_that_cannot_be_read_at_the_start_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EDGEPROXY_REPLICATION_KEYS"):
        Ring(ReplicationSettings(keys=Secret("short")))
    with pytest.raises(ConfigError, match="missing"):
        Ring(ReplicationSettings(key_file=tmp_path / "missing"))
