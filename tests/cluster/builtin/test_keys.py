"""Keys are read strictly and never shown."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin.keys import ClusterKey, key_ring, key_ring_file, new_key
from edgeproxy.errors import ConfigError
from edgeproxy.values import BadValueError, Secret

ONE, TWO = new_key(), new_key()


def both() -> Secret:
    return Secret(f"{ONE.reveal()},{TWO.reveal()}")


def test_the_first_key_seals_and_all_are_in_the_ring() -> None:
    ring = key_ring(both())
    assert ring.primary.id == key_ring(ONE).primary.id
    assert len(list(ring)) == 2


def test_a_file_has_one_key_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# new, since Tuesday\n{ONE.reveal()}\n\n  {TWO.reveal()}  \n")
    assert [key.id for key in key_ring_file(path)] == [key.id for key in key_ring(both())]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no key"),
        (" , ", "no key"),
        ("# only a remark", "no key"),
        ("not base64!", "no Base64"),
        ("é" * 44, "no Base64"),
        (base64.b64encode(b"x" * 31).decode(), "31 bytes"),
        (base64.b64encode(b"x" * 33).decode(), "33 bytes"),
        (base64.b64encode(bytes(32)).decode(), "zeros"),
        (f"{ONE.reveal()},{ONE.reveal()}", "twice"),
    ],
    ids=["empty", "comma", "remark", "text", "accents", "short", "long", "zeros", "twice"],
)
def test_what_is_no_ring_is_refused_without_being_shown(text: str, error: str) -> None:
    with pytest.raises(BadValueError, match=error) as raised:
        key_ring(Secret(text))
    assert not text.strip(" ,") or text not in str(raised.value)


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing, bad, binary = tmp_path / "missing", tmp_path / "bad", tmp_path / "binary"
    bad.write_text("x")
    binary.write_bytes(b"\xff\xfe")
    for path in (missing, bad, binary):
        with pytest.raises(ConfigError, match=path.name):
            key_ring_file(path)


def test_a_key_is_in_no_text() -> None:
    ring = key_ring(both())
    shown = f"{ring} {ring!r} {ring.primary} {ring.primary!r} {ONE} {ONE!r}"
    for key in (ONE, TWO):
        assert key.reveal() not in shown
        assert base64.b64decode(key.reveal()).hex() not in shown


def test_new_keys_are_new() -> None:
    assert len({new_key().reveal() for _ in range(100)}) == 100


def test_purposes_have_keys_of_their_own() -> None:
    key = ClusterKey(b"k" * 32)
    assert key.derived(b"a") != key.derived(b"b")
    assert key.derived(b"a") == ClusterKey(b"k" * 32).derived(b"a")


def test_reading_keys_does_not_import_cryptography() -> None:
    code = (
        "import sys; from edgeproxy.cluster.builtin import keys, sealing;"
        "keys.key_ring(keys.new_key()); assert 'cryptography' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
