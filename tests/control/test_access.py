"""The access log loses nothing it could write, and says what it could not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeproxy.control.access import AccessLog, line_of
from edgeproxy.core.record import ConnectionRecord
from edgeproxy.errors import EdgeProxyError
from tests.waiting import wait_until

RECORD = ConnectionRecord(
    "192.0.2.1", "BR", "sa", "shop", "sa-1", "scored", 1, 0.0123456789, 1.5, 10, 20, "finished"
)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_everything() -> None:
    assert json.loads(line_of(1_000_000_000.25, RECORD)) == {
        "time": "2001-09-09T01:46:40.250Z",
        "client": "192.0.2.1",
        "country": "BR",
        "region": "sa",
        "app": "shop",
        "backend": "sa-1",
        "how": "scored",
        "attempts": 1,
        "dial_secs": 0.012346,
        "secs": 1.5,
        "bytes_in": 10,
        "bytes_out": 20,
        "end": "finished",
    }


def test_all_that_was_taken_is_there_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    for number in range(5000):
        access.take(RECORD._replace(bytes_in=number))
    access.close()
    assert [line["bytes_in"] for line in lines(path)] == list(range(5000))
    assert access.dropped == 0


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    access.take(RECORD)
    wait_until(lambda: path.stat().st_size > 0, "the first line")
    path.rename(tmp_path / "access.log.1")
    access.take(RECORD._replace(client="192.0.2.2"))
    access.close()
    assert [line["client"] for line in lines(path)] == ["192.0.2.2"]


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeProxyError, match=r"EDGEPROXY_ACCESS_LOG=.*No such file"):
        AccessLog(str(tmp_path / "none" / "access.log"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_a_full_disk_does_not_take_is_counted() -> None:
    access = AccessLog("/dev/full")
    for _ in range(10):
        access.take(RECORD)
    access.close()
    assert access.dropped == 10


def test_no_line_is_left_in_part_where_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    size = len(line_of(0.0, RECORD))
    real, room = os.write, size * 2 + 7

    def write(fd: int, data: memoryview) -> int:
        nonlocal room
        if fd != access._fd:
            return real(fd, data)
        if not room:
            raise OSError(28, "No space left on device")
        taken = real(fd, data[:room])
        room -= taken
        return taken

    try:
        os.write = write  # type: ignore[assignment]
        access._write([(0.0, RECORD)] * 5)
    finally:
        os.write = real
    assert len(lines(path)) == 2
    assert access.dropped == 3
    access.take(RECORD)
    access.close()
    assert len(lines(path)) == 3
