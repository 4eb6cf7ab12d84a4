"""The name of a POP stays, and each of its lives has a larger number."""

from __future__ import annotations

from pathlib import Path
from socket import gethostname

import pytest

from edgeproxy.cluster.identity import IdentityError, begin_life, node_id_of, path_beside
from edgeproxy.errors import UsageError


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_the_host_name_is_kept(db_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_id_of(db_path, "") == gethostname()
    monkeypatch.setattr("edgeproxy.cluster.identity.gethostname", lambda: "renamed")
    assert node_id_of(db_path, "") != "renamed"


def test_a_configured_name_wins_and_stays(db_path: Path) -> None:
    node_id_of(db_path, "")
    assert node_id_of(db_path, "sa-1") == "sa-1"
    assert node_id_of(db_path, "") == "sa-1"


def test_lives_are_numbered_upwards_whatever_the_clock_says(db_path: Path) -> None:
    lives = [begin_life(db_path, "sa", now_ms)[1] for now_ms in (1000, 1000, 5, 9000)]
    assert lives == sorted(set(lives))


@pytest.mark.parametrize("name", ["x" * 65, "é", "a b", "a\nb"])
def test_a_name_that_is_not_allowed_is_refused(db_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="NODE_ID"):
        node_id_of(db_path, name)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"node_id": 1, "life": 2}', '{"life": 2}'])
def test_a_damaged_file_is_named(db_path: Path, content: str) -> None:
    path_beside(db_path).write_text(content)
    with pytest.raises(IdentityError, match="delete it"):
        node_id_of(db_path, "")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cannot be written"):
        node_id_of(tmp_path / "missing" / "state.db", "sa")
