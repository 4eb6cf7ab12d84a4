"""Breadth-first search of all states, each once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tests.model.world import Action, Fault, World

State = tuple[int, ...]


class Result(NamedTuple):
    """What was found.

    Attributes:
        states: Different states that were seen.
        depth: Most actions after which all states were seen.
        is_exhausted: There are no other states.
        fault: What must not be, with the actions that lead to it; none if nothing was found.
    """

    states: int
    depth: int
    is_exhausted: bool
    fault: str
    actions: tuple[Action, ...]


def search(first: World, is_over: Callable[[int], bool]) -> Result:
    """Search until a fault is found, all is seen, or `is_over`, asked with the states so far."""
    seen = {first.key()}
    came_from: dict[State, tuple[State, Action]] = {}
    queue = deque([(first, 0)])
    depth = 0
    while queue:
        world, depth = queue.popleft()
        if is_over(len(seen)):
            return Result(len(seen), depth, False, "", ())
        here = world.key()
        for action in world.actions():
            try:
                after = world.after(action)
                if after is None or (key := after.key()) in seen:
                    continue
                after.check(action[1], world)
            except Fault as fault:
                path = (*_path(came_from, here), action)
                return Result(len(seen), depth + 1, False, str(fault), path)
            seen.add(key)
            came_from[key] = (here, action)
            queue.append((after, depth + 1))
    return Result(len(seen), depth, True, "", ())


def _path(came_from: dict[State, tuple[State, Action]], key: State) -> tuple[Action, ...]:
    actions: list[Action] = []
    while key in came_from:
        key, action = came_from[key]
        actions.append(action)
    return tuple(reversed(actions))
