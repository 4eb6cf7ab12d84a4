"""The parts keep to their limits, whoever uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edgeproxy import (
    CircuitBreaker,
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
        lambda: CircuitBreaker(failure_threshold=0),
        lambda: CircuitBreaker(timeout_secs=-1),
        lambda: HealthChecker("a", "127.0.0.1", 1, kind="icmp"),
        lambda: HealthChecker("a", "127.0.0.1", 1, interval_secs=0),
        lambda: HealthChecker("a", "127.0.0.1", 1, healthy_threshold=0),
        lambda: ConnectionPool(max_per_backend=-1),
        lambda: ConnectionPool(connect_timeout_secs=0),
        lambda: ConfigWatcher("x", interval_secs=0),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"more|one of|> 0"):
        make()


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


def test_a_drain_that_takes_too_long_says_so() -> None:
    async def run() -> None:
        shutdown = ShutdownController()
        assert await shutdown.wait_for_drain(0.0)
        with shutdown.connection_guard():
            assert not await shutdown.wait_for_drain(0.01)
        assert await shutdown.wait_for_drain(0.01)

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
