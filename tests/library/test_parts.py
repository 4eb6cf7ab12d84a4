"""The parts keep to their limits, whoever uses them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from ipaddress import ip_address
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from edgeproxy import (
    CircuitBreaker,
    ConfigChange,
    ConfigWatcher,
    ConnectionPool,
    HealthChecker,
    PrometheusMetrics,
    RateLimiter,
    ShutdownController,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateLimiter(max_requests=0),
        lambda: RateLimiter(burst=0),
        lambda: RateLimiter(window_secs=0),
        lambda: RateLimiter(window_secs=-1),
        lambda: RateLimiter(window_secs=inf),
        lambda: RateLimiter(window_secs=nan),
        lambda: RateLimiter(max_requests=nan),  # type: ignore[arg-type]
        lambda: RateLimiter(burst=inf),  # type: ignore[arg-type]
        lambda: CircuitBreaker(failure_threshold=0),
        lambda: CircuitBreaker(timeout_secs=nan),
        lambda: CircuitBreaker(timeout_secs=inf),
        lambda: CircuitBreaker(timeout_secs=-1),
        lambda: HealthChecker("a", "127.0.0.1", 1, kind="icmp"),
        lambda: HealthChecker("a", "127.0.0.1", 1, interval_secs=0),
        lambda: HealthChecker("a", "127.0.0.1", 1, healthy_threshold=0),
        lambda: HealthChecker("a", "127.0.0.1", 1, timeout_secs=inf),
        lambda: HealthChecker("a", "127.0.0.1", 0),
        lambda: HealthChecker("a", "127.0.0.1", 99999),
        lambda: ConnectionPool(max_per_backend=-1),
        lambda: ConnectionPool(idle_timeout_secs=nan),
        lambda: ConnectionPool(connect_timeout_secs=0),
        lambda: ConfigWatcher("x", interval_secs=0),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"more|one of|must be|> 0"):
        make()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("exec", {}),
        ("exec", {"command": " "}),
        ("exec", {"command": "check 'it"}),
        ("http", {"path": "a b\n"}),
        ("http", {"host_header": "a\r\nb: c"}),
    ],
)
def test_a_probe_that_cannot_be_made_is_refused(kind: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(?s)^(command|path|host_header)=.*allowed is"):
        HealthChecker("a", "127.0.0.1", 1, kind=kind, **arguments)


def test_a_checker_goes_on_whatever_it_meets() -> None:
    told: list[bool] = []
    faults: list[str] = []

    def changed(healthy: bool) -> None:
        told.append(healthy)
        raise RuntimeError("a bug of the program's")

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, what: faults.append(repr(what["exception"]))
        )
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        checker = HealthChecker(
            "a",
            host,
            port,
            kind="grpc",
            service="\udcff",  # cannot be written
            interval_secs=0.01,
            unhealthy_threshold=1,
            changed=changed,
        )
        async with checker, asyncio.timeout(20):
            while not told:
                await asyncio.sleep(0.01)
            assert checker.last_fault.startswith("probe failed: UnicodeEncodeError")
            server.close()
            while checker.last_fault != "connection refused":
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert told == [False]
    assert faults == [repr(RuntimeError("a bug of the program's"))]


def test_a_breaker_goes_through_its_states() -> None:
    clock = Clock()
    breaker = CircuitBreaker(2, 2, 30.0, clock=clock)
    for _ in range(2):
        assert breaker.allow()
        breaker.record_failure()
    assert (breaker.state, breaker.allow()) == ("open", False)
    clock.now += 30
    assert breaker.state == "half_open"
    assert breaker.allow()
    assert not breaker.allow()
    breaker.record_success()
    assert breaker.allow()
    breaker.record_success()
    assert (breaker.state, breaker.allow(), breaker.allow()) == ("closed", True, True)


def test_ipv6_neighbours_share_a_bucket() -> None:
    limiter = RateLimiter(burst=1, clock=Clock())
    assert limiter.check("2001:db8::1")
    assert not limiter.check("2001:db8::2")
    assert limiter.check("2001:db8:0:1::1")
    assert len(limiter) == 2


def test_a_client_may_be_an_address_and_nothing_else() -> None:
    limiter = RateLimiter(burst=1, clock=Clock())
    assert limiter.check("192.0.2.1")
    assert not limiter.check(ip_address("192.0.2.1"))
    assert limiter.remaining(ip_address("::ffff:192.0.2.1")) == 0
    with pytest.raises(TypeError, match=r"a client must be text, .* not None"):
        limiter.check(None)  # type: ignore[arg-type]


def test_a_pool_hands_out_nothing_old_or_ended() -> None:
    async def run() -> None:
        made: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: made.append(writer), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        clock = Clock()
        pool = ConnectionPool(2, 60.0, 300.0, clock=clock)

        async def full() -> None:
            async with asyncio.timeout(20):
                while pool.waiting(host, port) < 2 or len(made) % 3:
                    await asyncio.sleep(0.01)

        _, first = await pool.acquire(host, port)
        await full()
        for writer in made:
            writer.write(b"bye\n")
            writer.close()
        async with asyncio.timeout(20):
            while True:
                reader, again = await pool.acquire(host, port)
                again.write(b"x")
                await asyncio.sleep(0.05)
                if not reader.at_eof():
                    break
        assert pool.waiting(host, port) <= 2
        clock.now += 61
        _, young = await pool.acquire(host, port)
        for each in (first, again, young):
            each.close()
        await pool.close()
        for writer in made:
            writer.close()
        server.close()

    asyncio.run(run())


class Crowd:
    """A server, what is connected to it, and how many ever were."""

    async def open(self) -> tuple[str, int]:
        """Listen; return where."""
        self.clients: list[asyncio.StreamWriter] = []
        self.total = 0
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        address: tuple[str, int] = self._server.sockets[0].getsockname()
        return address

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer)
        self.total += 1
        await reader.read()
        writer.close()
        self.clients.remove(writer)

    async def wait_for(self, *, total: int, now: int) -> None:
        """Wait until so many have connected, and so many of them still are."""
        async with asyncio.timeout(20):
            while self.total < total or len(self.clients) != now:
                await asyncio.sleep(0.01)

    def end(self) -> None:
        """End all of them; the event loop does not hear of it before its next turn."""
        for writer in self.clients:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as tcp:
                tcp.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Wait until all have left."""
        await self.wait_for(total=0, now=0)
        self._server.close()


def test_a_pool_knows_of_an_end_before_the_event_loop_does() -> None:
    async def run() -> None:
        crowd = Crowd()
        host, port = await crowd.open()
        pool = ConnectionPool(2)
        _, first = await pool.acquire(host, port)
        await crowd.wait_for(total=3, now=3)
        ended = [each.get_extra_info("peername") for each in crowd.clients]
        crowd.end()
        _, second = await pool.acquire(host, port)
        assert second.get_extra_info("sockname") not in ended
        first.close()
        second.close()
        await pool.close()
        await crowd.close()

    asyncio.run(run())


def test_a_pool_that_nobody_asks_closes_what_has_waited_too_long() -> None:
    async def run() -> None:
        crowd = Crowd()
        host, port = await crowd.open()
        pool = ConnectionPool(2, idle_timeout_secs=0.3)
        _, first = await pool.acquire(host, port)
        await crowd.wait_for(total=3, now=1)
        assert pool.waiting(host, port) == 0
        first.close()
        await pool.close()
        await crowd.close()

    asyncio.run(run())


def test_a_closed_pool_makes_only_what_is_asked_for() -> None:
    async def run() -> None:
        crowd = Crowd()
        host, port = await crowd.open()
        pool = ConnectionPool(2)
        await pool.close()
        _, first = await pool.acquire(host, port)
        await crowd.wait_for(total=1, now=1)
        first.close()
        await crowd.close()
        assert (pool.waiting(host, port), crowd.total) == (0, 1)

    asyncio.run(run())


def test_a_drain_that_takes_too_long_says_so() -> None:
    async def run() -> None:
        shutdown = ShutdownController()
        assert await shutdown.wait_for_drain(0.0)
        with shutdown.connection_guard():
            assert not await shutdown.wait_for_drain(0.01)
        assert await shutdown.wait_for_drain(0.01)

    asyncio.run(run())


def test_a_signal_is_heard_while_anybody_waits_for_it() -> None:
    async def run() -> None:
        before = signal.getsignal(signal.SIGTERM)
        shutdown = ShutdownController()
        staying, leaving = (asyncio.create_task(shutdown.wait_for_signal()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert signal.getsignal(signal.SIGTERM) != before
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(staying, 20)
        assert signal.getsignal(signal.SIGTERM) == before

    asyncio.run(run())


def test_a_watcher_tells_of_faults_and_when_they_are_over(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    good = "a = 1\n"
    path.write_text(good)

    async def run() -> None:
        changes = ConfigWatcher(path, 0.01).changes()

        async def after(text: str) -> ConfigChange:
            path.write_text(text)
            return await asyncio.wait_for(anext(changes), 20)

        assert await after(good) == ({"a": 1}, {"a": 1}, "")
        assert (await after("a = ")).fault
        assert await after(good) == ({"a": 1}, {}, "")
        assert await after("a = " + "[" * 5000) == ({"a": 1}, {}, "it is nested too deeply")
        assert await after("a = 2") == ({"a": 2}, {"a": 2}, "")
        await changes.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())


def test_metrics_keep_names_and_types() -> None:
    metrics = PrometheusMetrics()
    metrics.record_connection("a", 0.002)
    metrics.record_closed("a")
    metrics.record_closed("a")
    metrics.record_error("a")
    metrics.record_bytes_received("a", 5)
    page = metrics.export_prometheus()
    assert 'edgeproxy_backend_connections_active{backend="a",region=""} 0.0' in page
    assert 'edgeproxy_backend_errors_total{backend="a",region=""} 1.0' in page
    assert "# TYPE edgeproxy_backend_rtt_seconds histogram" in page
