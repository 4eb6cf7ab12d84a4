"""Both ends of a connection derive one value, which no other connection has."""

from __future__ import annotations

import pytest

from edgeproxy.cluster.sessions.quic.channel import Channel
from tests.cluster.sessions.nodes import Cluster, Node, run, until


async def joined(node: Node) -> None:
    await until(lambda: node.peers, "a session")


def test_both_ends_have_the_same_value_and_no_two_connections_have() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            values = set()
            nodes = [await cluster.node(name) for name in "abc"]
            nodes[0].dial(nodes[1], nodes[2])
            await until(lambda: len(nodes[0].peers) == 2, "sessions")
            for peer in nodes[1:]:
                await joined(peer)
                (theirs,) = peer.transport._open
                ours = nodes[0].transport._sessions[peer.name]
                assert ours.link.channel == theirs.link.channel
                values.add(ours.link.channel)
            assert [len(each) for each in values] == [32, 32]

    run(main())


def test_the_value_is_there_only_after_the_handshake_and_depends_on_both_secrets() -> None:
    values = []
    for client, server in (("aa", "bb"), ("aa", "cc"), ("cc", "bb")):
        channel = Channel()
        channel.write("CLIENT_HANDSHAKE_TRAFFIC_SECRET 00 dd\n")
        channel.write(f"CLIENT_TRAFFIC_SECRET_0 00 {client}\n")
        with pytest.raises(KeyError):
            channel.value()
        channel.write(f"SERVER_TRAFFIC_SECRET_0 00 {server}\n")
        values.append(channel.value())
    assert len(set(values)) == 3


def test_secrets_are_not_kept() -> None:
    channel = Channel()
    channel.write("CLIENT_TRAFFIC_SECRET_0 00 cafe\n")
    assert channel.getvalue() == ""
    assert b"cafe" not in b"".join(channel._hashes.values())
