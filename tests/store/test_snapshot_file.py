"""The file that keeps the last good table: whole or not there, and checked like any other rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.errors import StoreError
from edgeproxy.store.snapshot import Snapshot
from edgeproxy.store.snapshot_file import load, save

KEPT = Snapshot(
    (
        Backend("a", "myapp", "sa", "10.0.0.1", 80, country="BR"),
        Backend("b é", "myapp", "us", "fd00::1", 8080, False, 0, 0, 0, True),
    ),
    (),
    {"*.example.com": "web"},
)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    for _ in range(2):
        save(path, KEPT)
        assert load(path) == KEPT
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
        save(tmp_path / "missing" / "kept", KEPT)


@pytest.mark.parametrize("content", ["", "garbage", "[]", "{}", '{"format": 1}', "\udcff"])
def test_what_is_no_snapshot_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kept"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(StoreError, match="is no snapshot of a routing database"):
        load(path)
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        load(tmp_path / "other")


def test_a_cut_file_is_refused_and_a_faulty_row_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    save(path, KEPT)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(StoreError, match="it is incomplete"):
        load(path)
    row = json.loads(lines[1])
    row[4] = 70000
    path.write_text(lines[0] + json.dumps(row) + "\n" + lines[2])
    snapshot = load(path)
    assert [each.id for each in snapshot.backends] == ["b é"]
    assert [each.id for each in snapshot.skipped] == ["a"]
