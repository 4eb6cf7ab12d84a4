"""What is said where no proxy answers."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from argparse import Namespace
from pathlib import Path

import pytest

from edgeproxy.cli.running.ask import ask
from edgeproxy.errors import EdgeProxyError


def complaint(path: Path) -> str:
    with pytest.raises(EdgeProxyError) as error:
        ask(Namespace(socket=str(path)), "/status")
    return str(error.value)


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "control").splitlines() == [
        "no proxy answers. Is one running, and as this user?",
        f"  {tmp_path}/control: there is no such socket",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to ask as")
def test_the_socket_of_another_user_says_whose_it_is() -> None:
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as listening:
        folder = Path(name)
        folder.chmod(0o755)
        listening.bind(str(folder / "control"))
        (folder / "control").chmod(0o600)
        owner = pwd.getpwuid(0).pw_name
        os.seteuid(65534)
        try:
            said = complaint(folder / "control")
        finally:
            os.seteuid(0)
    assert f"only the user of the proxy may ask it: sudo -u {owner} edgeproxy" in said
