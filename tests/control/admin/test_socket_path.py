"""Where the control socket is when no setting says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.control.admin.socket_path import default_paths, make_folder, writable_default


def test_the_folder_of_the_system_is_preferred_and_made(tmp_path: Path) -> None:
    own, system = tmp_path / "own", tmp_path / "run" / "edgeproxy"
    own.mkdir()
    system.parent.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(own)}
    assert default_paths(environ, system) == (system / "control", own / "edgeproxy" / "control")
    assert writable_default(environ, system) == system / "control"
    assert system.is_dir()


def test_where_that_cannot_be_made_it_is_the_folder_of_the_user(tmp_path: Path) -> None:
    system = tmp_path / "none" / "edgeproxy"
    assert writable_default({"XDG_RUNTIME_DIR": str(tmp_path)}, system) == (
        tmp_path / "edgeproxy" / "control"
    )
    assert writable_default({}, system) is None


def test_a_file_in_the_place_of_the_folder_is_passed_over(tmp_path: Path) -> None:
    system = tmp_path / "edgeproxy"
    system.write_text("")
    assert writable_default({}, system) is None


def test_a_relative_folder_of_the_user_does_not_count() -> None:
    assert len(default_paths({"XDG_RUNTIME_DIR": "run"})) == 1


def test_no_folder_above_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_folder(tmp_path / "a" / "b" / "control")
