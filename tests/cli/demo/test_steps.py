"""A step of the demo fails when what it claims is not what happens."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from edgeproxy.cli.demo.clients import AMERICAN, ARGENTINE, BRAZILIAN
from edgeproxy.cli.demo.environment import Environment
from edgeproxy.cli.demo.expected import UnmetError
from edgeproxy.cli.demo.output import Output
from edgeproxy.cli.demo.signals import StopSignals
from edgeproxy.cli.demo.steps import Steps
from edgeproxy.store.sqlite.nodes import Nodes

pytestmark = pytest.mark.system


class OddEnvironment(Environment):
    """An environment whose proxy has another setting than the demo relies on."""

    def __init__(self, **odd: str) -> None:
        super().__init__(StopSignals())
        self._odd = odd

    @property
    def variables(self) -> dict[str, str]:
        return super().variables | self._odd


class Play:
    """A demo that has started, and a way to break it."""

    def __init__(self, environment: Environment) -> None:
        self.out = io.StringIO()
        self.environment = environment
        self.steps = Steps(self.environment, Output(self.out))
        try:
            self.environment.open()
            self.steps.start()
        except BaseException:
            self.close()
            raise

    def kill(self, node_id: str) -> None:
        """End a backend behind the demo's back."""
        process = self.environment.backends[node_id]
        process.kill()
        process.wait()

    def close(self) -> None:
        self.steps.hang_up()
        self.environment.close()


@pytest.fixture
def play() -> Iterator[Play]:
    play = Play(Environment(StopSignals()))
    yield play
    play.close()


def test_a_client_that_reaches_another_backend_than_decided_is_noticed(play: Play) -> None:
    play.kill("eu-node-1")
    with pytest.raises(UnmetError) as raised:
        play.steps.geography()
    assert "127.49.0.1 (DE Germany)" in raised.value.claim
    assert (raised.value.expected, raised.value.seen) == ("eu-node-1", "eu-node-2")
    assert "eu-node-2" in play.out.getvalue(), "the table shows what happened"


def test_a_client_that_moves_without_cause_is_noticed(play: Play) -> None:
    play.steps.geography()
    Nodes(play.environment.database).disable(play.steps.reached[ARGENTINE])
    with pytest.raises(UnmetError) as raised:
        play.steps.disable()
    assert raised.value.claim == "only the clients of sa-node-1 moved"
    assert "127.54.0.1" not in str(raised.value.expected)
    assert "127.54.0.1" in str(raised.value.seen)


def test_a_connection_that_is_cut_by_disabling_its_node_is_noticed(play: Play) -> None:
    play.steps.geography()
    play.kill(play.steps.reached[BRAZILIAN])
    with pytest.raises(UnmetError) as raised:
        play.steps.disable()
    assert raised.value.claim == "connections opened before stay with sa-node-1"


def test_a_failover_to_another_backend_than_decided_is_noticed(play: Play) -> None:
    play.steps.geography()
    assert play.steps.reached[AMERICAN] == "us-node-1"
    play.kill("us-node-2")
    with pytest.raises(UnmetError) as raised:
        play.steps.failover()
    assert (raised.value.expected, raised.value.seen) == ("us-node-2", "us-node-3")


def test_a_decision_against_plain_geography_is_noticed() -> None:
    play = Play(OddEnvironment(EDGEPROXY_REGION="eu"))
    try:
        with pytest.raises(UnmetError) as raised:
            play.steps.geography()
    finally:
        play.close()
    assert raised.value.claim == "127.81.0.1 (JP Japan) is served in its region"
    assert (raised.value.expected, raised.value.seen) == ("sa", "eu")


def test_a_proxy_that_cuts_transfers_is_noticed() -> None:
    play = Play(OddEnvironment(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="0"))
    try:
        play.steps.geography()
        with pytest.raises(UnmetError):
            play.steps.drain()
    finally:
        play.close()
    assert "downloads finished" not in play.out.getvalue()
