"""Reading a file that anything may have replaced: it ends, in time and in memory."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edgeproxy import regular_file
from edgeproxy.regular_file import UnsuitableFileError, chunks, read, read_text, tail

MAX_BYTES = 100


def test_a_file_of_the_largest_size_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MAX_BYTES))
    assert read(path, MAX_BYTES) == bytes(MAX_BYTES)


def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 40)
    for limit, shown in ((16 << 10, "16 KiB"), (1 << 20, "1 MiB"), (1 << 30, "1024 MiB")):
        with pytest.raises(UnsuitableFileError, match=f"larger than {shown}"):
            read(path, limit)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MAX_BYTES)
    parts = chunks(path, MAX_BYTES)
    assert len(next(parts)) == MAX_BYTES
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(UnsuitableFileError, match="larger than"):
        next(parts)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, link, unix = tmp_path / "fifo", tmp_path / "link", tmp_path / "unix"
    os.mkfifo(fifo)
    link.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(unix))
        for path in (fifo, link, unix, tmp_path, Path("/dev/null")):
            for reading in (read, read_text, lambda path, most: tail(path, 1, most)):
                with pytest.raises(UnsuitableFileError) as error:
                    reading(path, MAX_BYTES)
                assert error.value.strerror == "it is not a regular file"


def test_a_fifo_that_a_process_writes_is_not_waited_for_either(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    both = os.open(fifo, os.O_RDWR)
    try:
        with pytest.raises(UnsuitableFileError):
            read(fifo, MAX_BYTES)
    finally:
        os.close(both)


def test_files_that_tell_no_size_are_read_and_bounded() -> None:
    assert read(Path("/proc/self/cmdline"), 1 << 20)
    with pytest.raises(UnsuitableFileError, match="larger than"):
        read(Path("/proc/self/environ"), 1)


def test_links_are_followed_as_kubernetes_makes_them(tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "file").write_text("text")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "file").symlink_to("..data/file")
    assert read_text(tmp_path / "file", MAX_BYTES) == "text"


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ação", "utf-8-sig")
    assert read_text(path, MAX_BYTES) == "ação"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        mark = (
            b"" if encoding == "utf-16" else {"le": b"\xff\xfe", "be": b"\xfe\xff"}[encoding[-2:]]
        )
        path.write_bytes(mark + "text".encode(encoding))
        with pytest.raises(ValueError, match="save it as UTF-8"):
            read_text(path, MAX_BYTES)


def test_the_end_of_a_file_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert tail(path, 3, MAX_BYTES) == b"789"
    assert tail(path, 30, MAX_BYTES) == b"0123456789"


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MAX_BYTES + 1))
    before = os.listdir("/proc/self/fd")
    for _ in range(10):
        with pytest.raises(UnsuitableFileError):
            read(path, MAX_BYTES)
        read(path, MAX_BYTES + 1)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nothing_in_the_source_reads_a_file_in_another_way() -> None:
    source = Path(regular_file.__file__).parent
    reading = ("read_text(", "read_bytes(", '.open("r')
    allowed = {"regular_file.py", "cli/demo/proxy.py"}
    for path in source.rglob("*.py"):
        if path.relative_to(source).as_posix() in allowed:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if any(way in line for way in reading):
                assert "regular_file." in line or " read_text(" in line or "(read_text(" in line, (
                    path,
                    line,
                )
