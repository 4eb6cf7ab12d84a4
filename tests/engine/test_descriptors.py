"""The engine leaves some descriptors to the rest of the process."""

from __future__ import annotations

import os
import resource

from edgeproxy.engine.descriptors import RESERVED, ceiling, room_below


def test_the_reserve_is_a_fixed_number_or_a_quarter_of_few() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        assert ceiling() == 1024 - RESERVED
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        assert ceiling() == 75
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_there_is_room_below_a_number_while_a_lower_one_is_free() -> None:
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    assert room_below(lowest_free + 1)
    assert not room_below(lowest_free)
