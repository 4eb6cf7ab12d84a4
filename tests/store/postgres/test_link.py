"""The connections to a server: what of them may be seen, and what not."""

from __future__ import annotations

import gc
import os
import signal
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.store.postgres.link import Link
from edgeproxy.store.postgres.nodes import PostgresNodes
from edgeproxy.store.postgres.store import PostgresStore
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from tests.store.conformance.kinds import PostgresKind
from tests.store.server import Database, Server
from tests.waiting import wait_until

OURS = "FROM pg_stat_activity WHERE application_name = 'edgeproxy' AND datname = '{}'"


def settings_of(database: Database, **more: float) -> PostgresSettings:
    settings = PostgresSettings(enabled=True, url=PostgresUrl(database.url))
    return replace(settings, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_edits_at_the_same_time_do_not_depend_on_what_the_database_prefers(
    postgres: Database, level: str
) -> None:
    kind = PostgresKind(postgres)
    kind.store().ensure()
    kind.insert("one")
    postgres.execute(
        f"ALTER DATABASE {postgres.name} SET default_transaction_isolation = '{level}'"
    )
    faults: list[str] = []

    def edit() -> None:
        with closing(PostgresNodes(Link(kind.settings))) as nodes:
            for weight in range(10):
                try:
                    nodes.set_weight("one", weight)
                except StoreError as error:
                    faults.append(str(error))

    threads = [threading.Thread(target=edit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kind.close()
    assert faults == []


def test_polls_while_the_server_is_down_keep_nothing(own_server: Server) -> None:
    database = own_server.new_database()
    woken = threading.Semaphore(0)
    with closing(PostgresStore(settings_of(database), wake=woken.release)) as store:
        store.read()
        assert woken.acquire(timeout=20)
        own_server.kill()
        wait_until(lambda: store.link.down is not None, "the end of the server")
        depths = []
        for _ in range(50):
            with pytest.raises(StoreError) as raised:
                store.changed()
            depths.append(len(raised.traceback))
    assert depths[-1] == depths[1]


def test_a_connection_that_hangs_when_it_is_replaced_is_not_heard_of(
    own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver closes it in a task that nobody waits for."""
    database = own_server.new_database()
    ours = OURS.format(database.name)
    hung = 0

    def backend(link: Link) -> int:
        return int(link.read(lambda each: each.fetchval("SELECT pg_backend_pid()")))

    settings = settings_of(database, connect_timeout_secs=0.2, query_timeout_secs=0.2)
    try:
        with closing(Link(settings, lambda _is_change: None)) as link:
            hung = backend(link)
            wait_until(lambda: database.execute(f"SELECT count(*) {ours}") == [("2",)], "both")
            (listening,) = database.execute(f"SELECT pid {ours} AND pid <> {hung}")[0]
            open_files = len(os.listdir("/proc/self/fd"))
            os.kill(hung, signal.SIGSTOP)
            os.kill(int(listening), signal.SIGTERM)  # what the pool has is expired then
            wait_until(lambda: link.down is not None, "the end of listening")
            wait_until(lambda: link.down is None, "listening again")
            assert backend(link) != hung
            wait_until(lambda: len(os.listdir("/proc/self/fd")) == open_files, "the end of it")
        gc.collect()
    finally:
        if hung:
            os.kill(hung, signal.SIGCONT)
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []
