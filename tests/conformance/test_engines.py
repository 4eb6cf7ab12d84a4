"""The suite runs over every engine that this machine can build."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.conformance.engines import ENGINES


def test_the_native_engine_is_among_them() -> None:
    if os.environ.get("EDGEPROXY_NO_NATIVE", "") not in ("", "0"):
        pytest.skip("EDGEPROXY_NO_NATIVE is set")
    if not (shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")):
        pytest.skip("no C compiler: the native engine is not built here")
    assert [kind for kind, _ in ENGINES] == ["portable", "native"]
