"""A page of metrics is made once at a time, whoever asks, and is never older than the question."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack

from edgeproxy.control.observe.metrics_page import Scrapes, metrics_page
from edgeproxy.control.observe.status_snapshot import StatusSnapshot
from tests.control.observe.snapshots import NOTHING
from tests.control.serving import get, rest_of, served
from tests.waiting import wait_until

DEADLINE_SECS = 20.0


class Slow:
    """Renders numbered pages, each when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.pages = 0
        self.threads: set[str] = set()
        self.most_at_once = self._at_once = 0

    def render(self) -> bytes:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.pages += 1
        page = b"%d" % self.pages
        self.threads.add(threading.current_thread().name)
        self.begun.release()
        assert self.let_go.acquire(timeout=DEADLINE_SECS)
        self._at_once -= 1
        return page


async def begun(slow: Slow) -> None:
    """Wait until a page is being made."""
    assert await asyncio.to_thread(slow.begun.acquire, timeout=DEADLINE_SECS)


def test_all_who_ask_while_a_page_is_made_share_the_next_one() -> None:
    slow = Slow()

    async def run() -> None:
        scrapes = Scrapes(slow.render)
        first = asyncio.create_task(scrapes.page())
        await begun(slow)
        others = [asyncio.create_task(scrapes.page()) for _ in range(50)]
        await asyncio.to_thread(int)  # what else runs in threads is not held up
        slow.let_go.release()
        assert await first == b"1"
        await begun(slow)
        slow.let_go.release()
        assert await asyncio.gather(*others) == [b"2"] * 50
        slow.let_go.release()
        assert await scrapes.page() == b"3"

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))
    assert (slow.pages, slow.most_at_once) == (3, 1)
    assert len(slow.threads) == 1


def test_a_caller_that_leaves_takes_the_page_from_no_other() -> None:
    slow = Slow()

    async def run() -> None:
        scrapes = Scrapes(slow.render)
        leaves = asyncio.create_task(scrapes.page())
        stays = asyncio.create_task(scrapes.page())
        await begun(slow)
        leaves.cancel()
        slow.let_go.release()
        assert await stays == b"1"

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_a_page_that_cannot_be_made_is_made_the_next_time() -> None:
    pages = iter([RuntimeError("once"), b"page"])

    def render() -> bytes:
        page = next(pages)
        if isinstance(page, RuntimeError):
            raise page
        assert isinstance(page, bytes)
        return page

    async def run() -> None:
        scrapes = Scrapes(render)
        failed = await asyncio.gather(scrapes.page(), scrapes.page(), return_exceptions=True)
        assert [str(each) for each in failed] == ["once", "once"]
        assert await scrapes.page() == b"page"

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_many_scrapers_cost_few_pages() -> None:
    reads = 0
    let_go = threading.Event()

    def read() -> StatusSnapshot:
        nonlocal reads
        reads += 1
        assert let_go.wait(DEADLINE_SECS)
        return NOTHING

    with served(metrics_page(read, "/metrics")) as address, ExitStack() as held:
        scrapers = []
        for _ in range(50):
            scrapers.append(held.enter_context(socket.create_connection(address, DEADLINE_SECS)))
            scrapers[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert get(address, "/other") == b"not found; the paths are: /metrics\n"
        wait_until(lambda: reads, "a page that is being made")
        let_go.set()
        for each in scrapers:
            assert b"edgeproxy_connections_total 0.0" in rest_of(each)
    assert reads <= 3
