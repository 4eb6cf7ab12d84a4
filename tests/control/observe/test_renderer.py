"""Answers are made one at a time and are shared, whoever asks; costly ones are kept for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from edgeproxy.control.observe import renderer
from edgeproxy.control.observe.renderer import BusyError, Renderer
from edgeproxy.core.pacing import Pause

DEADLINE_SECS = 20.0
KEY = ("page",)


class Slow:
    """Renders numbered answers, each when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.answers = 0
        self.threads: set[str] = set()
        self.most_at_once = self._at_once = 0

    def render(self, _rest: Pause) -> list[bytes]:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.answers += 1
        answer = b"%d" % self.answers
        self.threads.add(threading.current_thread().name)
        self.begun.release()
        assert self.let_go.acquire(timeout=DEADLINE_SECS)
        self._at_once -= 1
        return [answer]


async def begun(slow: Slow) -> None:
    """Wait until an answer is being made."""
    assert await asyncio.to_thread(slow.begun.acquire, timeout=DEADLINE_SECS)


def costly(_rest: Pause) -> list[bytes]:
    """Take so much processor time that the answer is kept."""
    began_at = time.thread_time()
    while time.thread_time() - began_at <= renderer.COSTLY_SECS:
        pass
    return [b"%d" % time.monotonic_ns()]


def test_all_who_ask_while_an_answer_is_made_share_the_next_one() -> None:
    slow = Slow()

    async def run() -> None:
        pages = Renderer()
        first = asyncio.create_task(pages.answer(KEY, slow.render))
        await begun(slow)
        others = [asyncio.create_task(pages.answer(KEY, slow.render)) for _ in range(50)]
        await asyncio.to_thread(int)  # what else runs in threads is not held up
        slow.let_go.release()
        assert await first == [b"1"]
        await begun(slow)
        slow.let_go.release()
        assert await asyncio.gather(*others) == [[b"2"]] * 50
        slow.let_go.release()
        assert await pages.answer(KEY, slow.render) == [b"3"]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))
    assert (slow.answers, slow.most_at_once) == (3, 1)
    assert len(slow.threads) == 1


def test_answers_of_all_kinds_are_made_one_at_a_time() -> None:
    slow = Slow()

    async def run() -> None:
        pages = Renderer()
        asked = [asyncio.create_task(pages.answer((kind,), slow.render)) for kind in range(8)]
        for _ in asked:
            slow.let_go.release()
        assert sorted(each[0] for each in await asyncio.gather(*asked)) == [
            b"%d" % n for n in range(1, 9)
        ]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))
    assert (slow.most_at_once, len(slow.threads)) == (1, 1)


def test_a_caller_that_leaves_takes_the_answer_from_no_other() -> None:
    slow = Slow()

    async def run() -> None:
        pages = Renderer()
        leaves = asyncio.create_task(pages.answer(KEY, slow.render))
        stays = asyncio.create_task(pages.answer(KEY, slow.render))
        await begun(slow)
        leaves.cancel()
        slow.let_go.release()
        assert await stays == [b"1"]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_an_answer_that_nobody_waits_for_any_more_is_not_made() -> None:
    slow = Slow()

    async def run() -> None:
        pages = Renderer()
        first = asyncio.create_task(pages.answer(KEY, slow.render))
        await begun(slow)
        left = asyncio.create_task(pages.answer(("other",), slow.render))
        await asyncio.sleep(0)
        left.cancel()
        slow.let_go.release()
        await first
        slow.let_go.release()
        assert await pages.answer(KEY, slow.render) == [b"2"]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_an_answer_that_cannot_be_made_is_made_the_next_time() -> None:
    def fail(_rest: Pause) -> list[bytes]:
        raise RuntimeError("once")

    async def run() -> None:
        pages = Renderer()
        failed = await asyncio.gather(
            pages.answer(KEY, fail), pages.answer(KEY, fail), return_exceptions=True
        )
        assert [str(each) for each in failed] == ["once", "once"]
        assert await pages.answer(KEY, lambda _rest: [b"page"]) == [b"page"]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_a_costly_answer_is_kept_for_those_who_ask_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "KEPT_SECS", 3600.0)

    async def run() -> None:
        pages = Renderer()
        answers = [await pages.answer(KEY, costly) for _ in range(5)]
        assert answers == [answers[0]] * 5
        assert await pages.answer(("other",), costly) != answers[0]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_a_costly_answer_is_made_anew_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renderer, "KEPT_SECS", 0.0)

    async def run() -> None:
        pages = Renderer()
        assert await pages.answer(KEY, costly) != await pages.answer(KEY, costly)

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_who_would_wait_too_long_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "MAX_WAIT_SECS", 0.0)
    slow = Slow()

    async def run() -> None:
        pages = Renderer()
        slow.let_go.release()
        await pages.answer(("explain", 0), slow.render)  # what such an answer costs is known
        await begun(slow)
        first = asyncio.create_task(pages.answer(("explain", 1), slow.render))
        await begun(slow)
        second = asyncio.create_task(pages.answer(("explain", 2), slow.render))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await pages.answer(("explain", 3), slow.render)
        slow.let_go.release()
        slow.let_go.release()
        assert [await first, await second] == [[b"2"], [b"3"]]

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))


def test_the_renderer_lets_go_of_the_interpreter_as_often_as_it_is_told() -> None:
    rests: list[Callable[[], object]] = []

    async def run() -> None:
        def render(rest: Pause) -> list[bytes]:
            rests.append(rest)
            rest()
            return []

        await Renderer().answer(KEY, render)

    asyncio.run(asyncio.wait_for(run(), DEADLINE_SECS))
    assert rests
