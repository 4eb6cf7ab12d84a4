"""The access log loses nothing it could write, and says what it could not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeproxy.control.observe.access_log import AccessLog, line_of
from edgeproxy.core.admission.record import ConnectionRecord
from edgeproxy.core.admission.ticket import Inbound
from edgeproxy.errors import EdgeProxyError
from tests.waiting import wait_until

RECORD = ConnectionRecord(
    "192.0.2.1", "BR", "sa", "shop", "sa-1", "scored", 1, 0.0123456789, 1.5, 10, 20, "finished"
)
FIRST_FIELDS = [
    *("time", "client", "country", "region", "backend", "how", "attempts", "dial_secs", "secs"),
    *("bytes_in", "bytes_out", "end", "id", "app"),
]
"""Those that a reader by position may know."""


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_everything() -> None:
    record = RECORD._replace(
        ended_by="backend",
        first_byte_secs=0.25,
        backend_app="shop",
        backend_region="eu",
        inbound=Inbound(4711, "0.0.0.0:443", "shop.example", "h2", "TLSv1.3"),
    )
    line = json.loads(line_of(1_000_000_000.25, record, "us"))
    assert list(line)[:14] == FIRST_FIELDS
    assert line == {
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
        "id": None,
        "ended_by": "backend",
        "first_byte_secs": 0.25,
        "backend_app": "shop",
        "backend_region": "eu",
        "pop_region": "us",
        "listener": "0.0.0.0:443",
        "client_port": 4711,
        "server_name": "shop.example",
        "alpn": "h2",
        "tls": "TLSv1.3",
    }


def test_a_line_says_what_is_not_known() -> None:
    line = json.loads(line_of(0.0, RECORD, "us"))
    later = set(line) - set(FIRST_FIELDS) - {"ended_by", "pop_region"}
    assert {name: line[name] for name in later} == dict.fromkeys(later)


def test_a_line_is_ascii_whatever_names_hold() -> None:
    name = "ação \u202e\udc80"
    line = line_of(0.0, RECORD._replace(backend=name), "sa")
    assert line.isascii()
    assert json.loads(line)["backend"] == name


def test_all_that_was_taken_is_there_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path), "sa")
    for number in range(5000):
        access.take(RECORD._replace(bytes_in=number))
    access.close()
    assert [line["bytes_in"] for line in lines(path)] == list(range(5000))
    assert access.dropped == 0


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path), "sa")
    access.take(RECORD)
    wait_until(lambda: path.stat().st_size > 0, "the first line")
    path.rename(tmp_path / "access.log.1")
    access.take(RECORD._replace(client="192.0.2.2"))
    access.close()
    assert [line["client"] for line in lines(path)] == ["192.0.2.2"]


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeProxyError, match=r"EDGEPROXY_ACCESS_LOG=.*No such file"):
        AccessLog(str(tmp_path / "none" / "access.log"), "sa")


def test_while_no_new_file_can_be_made_the_old_one_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    access = AccessLog(str(folder / "access.log"), "sa")
    folder.rename(tmp_path / "moved")
    strangers = []
    for number in range(5):
        access._write([(0.0, RECORD._replace(bytes_in=number))])
        strangers.append(os.open("/dev/null", os.O_RDONLY))  # takes a number that is free
    assert [os.fstat(each).st_ino for each in strangers] == [os.stat("/dev/null").st_ino] * 5
    moved = tmp_path / "moved" / "access.log"
    assert [line["bytes_in"] for line in lines(moved)] == [0, 1, 2, 3, 4]
    assert access.dropped == 0
    assert [each.message for each in caplog.records] == ["access_log_failed"]

    folder.mkdir()
    access.take(RECORD._replace(bytes_in=5))
    access.close()
    assert [line["bytes_in"] for line in lines(folder / "access.log")] == [5]
    for each in strangers:
        os.close(each)


def test_what_goes_to_a_deleted_file_is_counted_until_there_is_a_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.log"
    access = AccessLog(str(path), "sa")
    path.unlink()
    folder.rmdir()
    access._write([(0.0, RECORD)] * 3)
    assert access.dropped == 3
    folder.mkdir()
    access.take(RECORD)
    access.close()
    assert len(lines(path)) == 1
    assert access.dropped == 3


def test_a_fifo_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(EdgeProxyError, match="FIFO that no process reads; start its reader first"):
        AccessLog(str(path), "sa")


def test_a_fifo_that_is_full_costs_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.control.observe.access_log.READER_SECS", 0.05)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    access = AccessLog(str(path), "sa")
    access._write([(0.0, RECORD._replace(bytes_in=number)) for number in range(1000)])
    got = os.read(reader, 1 << 20)
    access._write([(0.0, RECORD._replace(bytes_in=1000))])
    got += os.read(reader, 1 << 20)
    numbers = [json.loads(line)["bytes_in"] for line in got.splitlines()]
    assert 0 < access.dropped < 1000
    assert numbers == [*range(1000 - access.dropped), 1000]

    os.close(reader)
    access._write([(0.0, RECORD)])
    assert access.dropped == 1001 - len(numbers) + 1
    access.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_a_full_disk_does_not_take_is_counted() -> None:
    access = AccessLog("/dev/full", "sa")
    for _ in range(10):
        access.take(RECORD)
    access.close()
    assert access.dropped == 10


def test_no_line_is_left_in_part_where_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path), "sa")
    size = len(line_of(0.0, RECORD, "sa"))
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
