"""Gives a decoder one hostile input after the other and holds it to its promises.

For every input: nothing but a value, None or `WireError`; the same answer however the input was
cut, once there is one, unless it is a datagram; an answer in the end; an error whose text is one of
a fixed set; and what the target checks of a value. Inputs that lead to a new kind of answer join
the corpus.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeproxy.errors import WireError
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import Target

CUTS = 4
MAX_TEXTS = 40
MAX_CORPUS = 2_000

VALUE = "a value"
MORE = "more bytes, please"


class FoundError(Exception):
    """A promise was broken; the message holds the input in hexadecimal."""


@dataclass
class Report:
    """What a run has seen: how often each answer came, by its text."""

    target: str
    inputs: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    slowest_cpu_secs: float = 0.0


def fuzz(target: Target, seed: int, goes_on: Callable[[int], bool]) -> Report:
    """Fuzz until `goes_on`, asked with the number of inputs so far, says no.

    Raises FoundError at the first broken promise.
    """
    mutator = Mutator(seed, target.tokens)
    corpus = list(target.seeds)
    report = Report(target.name)
    waiting = list(corpus)
    while waiting or goes_on(report.inputs):
        data = waiting.pop() if waiting else mutator.mutate(corpus)
        if report.inputs % 2:
            data = target.repair(data)
        try:
            kind = _examine(target, data, mutator.cuts(data, CUTS), report)
        except Exception as error:
            raise FoundError(f"{target.name}: {error!r} for {data.hex()}") from error
        report.inputs += 1
        is_new = kind not in report.answers
        report.answers[kind] = report.answers.get(kind, 0) + 1
        if is_new or (kind == VALUE and report.inputs % 10 == 0):
            corpus.append(data)
            del corpus[len(target.seeds) : -MAX_CORPUS]
    assert len(report.answers) <= MAX_TEXTS, f"{target.name} puts what it is sent into its errors"
    return report


def _examine(target: Target, data: bytes, cuts: list[int], report: Report) -> str:
    """Return the kind of answer to an input, after checking what is promised."""
    started = time.thread_time()
    final = _answer(target, data)
    report.slowest_cpu_secs = max(report.slowest_cpu_secs, time.thread_time() - started)
    for cut in cuts:
        early = _answer(target, data[:cut])
        if target.is_datagram:
            continue
        assert early is None or early == final, f"after {cut} bytes {early!r}, then {final!r}"
    if final is None:
        filled = _answer(target, data.ljust(target.most_bytes, data[-1:] or b"\0"))
        assert filled is not None, "no answer in the end"
        return MORE
    if isinstance(final, str):
        return final
    target.check(final, data)
    return VALUE


def _answer(target: Target, data: bytes) -> object:
    try:
        return target.decode(data)
    except WireError as error:
        return str(error)
