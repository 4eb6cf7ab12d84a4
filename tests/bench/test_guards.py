"""The guards that are measured are switched on by settings that exist, each by its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.guards import GUARDS, guarded_subjects
from bench.subjects import Setup
from edgeproxy.config import load as config


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_is_on(name: str) -> None:
    loaded = config.load(GUARDS[name])
    assert loaded.warnings == ()
    assert loaded.config != config.load({}).config


def test_all_guards_together_are_each_of_them(tmp_path: Path) -> None:
    prepare = guarded_subjects()[-1].prepare
    assert prepare is not None
    environ = prepare(Setup(18080, 18081, tmp_path)).environ
    for settings in GUARDS.values():
        assert settings.items() <= environ.items()
