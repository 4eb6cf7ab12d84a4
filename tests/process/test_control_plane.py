"""What goes on beside serving does so whatever else is asked of the process."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from edgeproxy.config import load as config
from edgeproxy.process.app import Proxy
from tests.store.editing import DOCUMENTED_TABLE, execute

DEADLINE_SECS = 20.0


def test_the_database_is_looked_at_though_all_threads_render_pages(tmp_path: Path) -> None:
    database = tmp_path / "routing.db"
    execute(database, DOCUMENTED_TABLE)
    proxy = Proxy(
        config.load({"EDGEPROXY_DB_PATH": str(database), "EDGEPROXY_DB_RELOAD_SECS": "0.05"})
    )
    control_plane = proxy.control_plane
    proxy.feed.first()
    rendered = threading.Event()

    async def run() -> None:
        stopping = asyncio.Event()
        serving = asyncio.create_task(control_plane.serve(stopping))
        # More than a loop has threads.
        pages = [asyncio.create_task(asyncio.to_thread(rendered.wait)) for _ in range(100)]
        await asyncio.sleep(0)
        row = "'a', 'myapp', 'sa', '127.0.0.1', 80, 1, 1, 100, 200, 0"
        execute(database, f"INSERT INTO backends VALUES ({row})")
        try:
            async with asyncio.timeout(DEADLINE_SECS):
                while not proxy.publisher.backends:
                    await asyncio.sleep(0.01)
        finally:
            rendered.set()
            stopping.set()
            await asyncio.gather(serving, *pages)
            await control_plane.close()

    try:
        asyncio.run(run())
    finally:
        proxy.engine.stop()
    assert [each.id for each in proxy.publisher.backends] == ["a"]
