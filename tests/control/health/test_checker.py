"""The prober follows the table, tells changes once, and forgets what is gone."""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from edgeproxy.control.health.checker import Checker
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import HealthSettings, ProbeSettings

SETTINGS = ProbeSettings(enabled=True, interval_secs=0.05, timeout_secs=1.0)
HEALTH = HealthSettings(healthy_threshold=2, unhealthy_threshold=2)
DEADLINE_SECS = 20.0

ProxyProtocolOut = list[tuple[str, bool]]


class Stage:
    """A prober, servers that can come and go, and what was told."""

    def __init__(self) -> None:
        self.told: ProxyProtocolOut = []
        self.checker = Checker(lambda who, up: self.told.append((who, up)), rng=random.Random(1))
        self.checker.use(SETTINGS, HEALTH)

    async def server(self, port: int = 0) -> asyncio.Server:
        return await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)

    async def until(self, told: ProxyProtocolOut) -> None:
        async with asyncio.timeout(DEADLINE_SECS):
            while self.told != told:
                await asyncio.sleep(0.01)


def play(scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage()
        await scene(stage)
        stage.checker.stop()

    asyncio.run(run())


def backend(name: str, port: int) -> Backend:
    return Backend(name, "app", "sa", "127.0.0.1", port)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def test_it_tells_who_goes_down_and_who_comes_up() -> None:
    async def scene(stage: Stage) -> None:
        server = await stage.server()
        port = port_of(server)
        stage.checker.follow([backend("a", port)])
        server.close()
        await stage.until([("a", False)])
        again = await stage.server(port)
        await stage.until([("a", False), ("a", True)])
        again.close()

    play(scene)


def test_who_is_gone_is_forgotten_and_no_longer_held_down() -> None:
    async def scene(stage: Stage) -> None:
        stage.checker.follow([backend("a", 1)])
        await stage.until([("a", False)])
        stage.checker.follow([])
        assert stage.told == [("a", False), ("a", True)]
        assert stage.checker.verdicts == {}

    play(scene)


def test_who_cannot_be_probed_goes_down_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(stage: Stage) -> None:
        # No setting allows such a command: it stands for any bug that a probe may meet.
        stage.checker.use(replace(SETTINGS, kind="exec", command="'"), HEALTH)
        stage.checker.follow([backend("a", 1)])
        await stage.until([("a", False)])
        assert stage.checker.verdicts["a"].last == "probe failed: ValueError: No closing quotation"

    play(scene)
    assert [record.message for record in caplog.records].count("probe_failed") == 1


@pytest.mark.parametrize("kind", ["tcp", "exec"])
def test_a_lack_of_descriptors_says_nothing_about_a_backend(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scene(stage: Stage) -> None:
        stage.checker.use(replace(SETTINGS, kind=kind, command="false"), HEALTH)
        with open("/dev/null") as next_one:
            lowest = next_one.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            stage.checker.follow([backend("a", 1)])
            async with asyncio.timeout(DEADLINE_SECS):
                while not caplog.records:
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert caplog.records[0].message == "backend_not_probed"
        assert stage.told == []
        await stage.until([("a", False)])

    play(scene)


def test_the_same_table_is_not_looked_through_again() -> None:
    class Table(list[Backend]):
        looks = 0

        def __iter__(self) -> Iterator[Backend]:
            self.looks += 1
            return super().__iter__()

    async def scene(stage: Stage) -> None:
        table = Table([backend("a", 1)])
        for _ in range(3):
            stage.checker.follow(table)
        assert table.looks == 1
        stage.checker.use(replace(SETTINGS, interval_secs=0.1), HEALTH)
        stage.checker.follow(table)
        assert table.looks == 2
        assert stage.checker.verdicts.keys() == {"a"}

    play(scene)


def test_a_new_address_is_judged_anew() -> None:
    async def scene(stage: Stage) -> None:
        server = await stage.server()
        stage.checker.follow([backend("a", 1)])
        await stage.until([("a", False)])
        stage.checker.follow([backend("a", port_of(server))])
        assert stage.told == [("a", False), ("a", True)]
        assert stage.checker.verdicts["a"].up
        server.close()

    play(scene)


def test_other_settings_hold_at_once_and_keep_what_is_known() -> None:
    async def scene(stage: Stage) -> None:
        stage.checker.follow([backend("a", 1)])
        await stage.until([("a", False)])
        stage.checker.use(
            ProbeSettings(enabled=True, interval_secs=0.05, kind="exec", command="true"), HEALTH
        )
        await stage.until([("a", False), ("a", True)])
        stage.checker.use(ProbeSettings(enabled=False), HEALTH)
        assert stage.checker.verdicts == {}

    play(scene)
