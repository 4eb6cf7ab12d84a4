"""A fresh point of presence for each test, and room for a thousand sockets in this process."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster_pops import QUICK, Cluster
from tests.system.pop import Pop
from tests.system.running_demo import RunningDemo
from tests.underlay import need_underlay

DESCRIPTORS = 8192


@pytest.fixture(scope="session", autouse=True)
def _room_for_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.fixture
def pop(tmp_path: Path) -> Iterator[Pop]:
    with closing(Pop(tmp_path)) as pop:
        yield pop


@pytest.fixture(scope="module")
def _three_pops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need_underlay()
    with Cluster(tmp_path_factory.mktemp("cluster"), ["a", "b", "c"], more=QUICK) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(_three_pops: Cluster) -> Cluster:
    """Three POPs that are connected, with what earlier tests have left in their tables."""
    _three_pops.underlay.heal()
    _three_pops.wait_until_connected()
    _three_pops.wait_until_equal()
    return _three_pops


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[RunningDemo]:
    with closing(RunningDemo(tmp_path)) as demo:
        yield demo
