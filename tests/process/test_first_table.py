"""The table that is read at the start is not walked by the garbage collector, then or later."""

from __future__ import annotations

import gc
from pathlib import Path

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.process.first_table import publish_first
from edgeproxy.store.feed import Feed
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import execute

ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO backends SELECT 'far-' || i, 'myapp', 'eu', '127.0.0.9', 1, 1, 1, 50, 100, 0 FROM n
"""


def test_the_garbage_collector_has_nothing_to_walk_in_it(tmp_path: Path) -> None:
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    store = SqliteStore(tmp_path / "routing.db")
    store.ensure()
    execute(store.path, ROWS)
    feed = Feed(store, lambda snapshot: admission.publish(snapshot.backends), Metrics())
    assert publish_first(feed, store, lambda: False, may_come_back=False, is_successor=False)
    admission.adopt()
    store.close()
    assert len(admission.table.candidates) == 500
    walked = [each for each in gc.get_objects() if isinstance(each, (Backend, Candidate))]
    table = admission.table.candidates.values()
    assert not {id(each) for each in walked} & {id(each) for each in table}
    assert not {id(each) for each in walked} & {id(each.backend) for each in table}
    assert gc.isenabled()
