"""What the parts of a registry need, fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.registry.pop import RegistryPop


@pytest.fixture
def pop(tmp_path: Path) -> Iterator[RegistryPop]:
    with closing(RegistryPop(tmp_path)) as pop:
        yield pop


@pytest.fixture
def brief(tmp_path: Path) -> Iterator[RegistryPop]:
    """One whose leases last for a second."""
    with closing(RegistryPop(tmp_path, ttl_secs=1.0)) as pop:
        yield pop


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[RegistryPop]:
    """One whose leases last so long that the database is looked at only when something is up."""
    with closing(RegistryPop(tmp_path, ttl_secs=6000.0)) as pop:
        yield pop
