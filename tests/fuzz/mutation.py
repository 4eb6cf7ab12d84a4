"""How bytes are made wrong: as senders err, and as attackers try."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MAX_BYTES = 20_000
BYTES = (0x00, 0x01, 0x02, 0x03, 0x0A, 0x0D, 0x16, 0x20, 0x21, 0x30, 0x7F, 0x80, 0xFF)
NUMBERS = (0, 1, 2, 3, 4, 12, 16, 36, 0xFF, 0x100, 0x1000, 0x4000, 0x4001, 0x7FFF, 0xFFFF)

Mutation = Callable[[bytearray], None]


class Mutator:
    """Makes new inputs from known ones. Repeats itself for the same seed."""

    def __init__(self, seed: int, tokens: Sequence[bytes]) -> None:
        self._random = random.Random(seed)
        self._tokens = tokens
        self._mutations: tuple[Mutation, ...] = (
            self._flip_bit,
            self._set_byte,
            self._set_number,
            self._move_number,
            self._insert,
            self._insert_token,
            self._remove,
            self._repeat,
            self._cut,
        )

    def mutate(self, corpus: Sequence[bytes]) -> bytes:
        """Return an input made of one or two of the corpus."""
        few = corpus[-50:] if self._random.random() < 0.5 else corpus[:20]
        data = bytearray(self._random.choice(few))
        if self._random.random() < 0.1:
            other = self._random.choice(corpus)
            data[self._place(data) :] = other[self._random.randint(0, len(other)) :]
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            self._random.choice(self._mutations)(data)
        return bytes(data[:MAX_BYTES])

    def cuts(self, data: bytes, number: int) -> list[int]:
        """Return places to cut an input at, in order."""
        return sorted(self._random.randint(0, len(data)) for _ in range(number))

    def _place(self, data: bytearray) -> int:
        """Return a place, more often near the start, where the headers are."""
        most = len(data) if self._random.random() < 0.5 else min(len(data), 80)
        return self._random.randint(0, most)

    def _some(self) -> int:
        return int(self._random.paretovariate(1)) if self._random.random() < 0.9 else 300

    def _flip_bit(self, data: bytearray) -> None:
        at = self._place(data)
        data[at : at + 1] = bytes(
            byte ^ 1 << self._random.randrange(8) for byte in data[at : at + 1]
        )

    def _set_byte(self, data: bytearray) -> None:
        at = self._place(data)
        data[at : at + 1] = bytes((self._random.choice(BYTES),))

    def _set_number(self, data: bytearray) -> None:
        at = self._place(data)
        data[at : at + 2] = self._random.choice(NUMBERS).to_bytes(2)

    def _move_number(self, data: bytearray) -> None:
        at = self._place(data)
        number = int.from_bytes(data[at : at + 2]) + self._random.randint(-4, 4)
        data[at : at + 2] = (number & 0xFFFF).to_bytes(2)

    def _insert(self, data: bytearray) -> None:
        at = self._place(data)
        data[at:at] = self._random.randbytes(min(self._some(), 300))

    def _insert_token(self, data: bytearray) -> None:
        at = self._place(data)
        token = self._random.choice(self._tokens)
        end = at + (len(token) if self._random.random() < 0.5 else 0)
        data[at:end] = token

    def _remove(self, data: bytearray) -> None:
        at = self._place(data)
        del data[at : at + self._some()]

    def _repeat(self, data: bytearray) -> None:
        at = self._place(data)
        part = data[at : at + self._some()]
        data[at:at] = part * min(self._some(), 40)

    def _cut(self, data: bytearray) -> None:
        del data[self._place(data) :]
