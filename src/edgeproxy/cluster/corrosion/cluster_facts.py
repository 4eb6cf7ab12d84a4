"""What the state of Corrosion says of the cluster: who is who, and what is known and missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edgeproxy.cluster.corrosion.configuration import POPS
from edgeproxy.cluster.corrosion.members import Facts, Pop
from edgeproxy.cluster.engine import EngineError
from edgeproxy.core.cluster.rows import TABLES

_ACTOR = "SELECT hex(site_id) FROM crsql_site_id WHERE ordinal = 0"
_CLUSTER_ID = "SELECT value FROM __corro_state WHERE key = 'cluster_id'"
_POPS = f"SELECT actor_id, node_id, region FROM {POPS}"  # noqa: S608
_GAPS = "SELECT hex(actor_id), sum(end - start + 1) FROM __corro_bookkeeping_gaps GROUP BY actor_id"
_PARTS = (
    "SELECT hex(site_id), count(DISTINCT db_version) FROM __corro_seq_bookkeeping GROUP BY site_id"
)
_COUNTS = [f"SELECT count(*) FROM {name}" for name in TABLES]  # noqa: S608
WAIT_SECS = 0.5


def read_facts(path: Path) -> Facts:
    """Return what the state says. Raises EngineError, also before it is made."""
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECS)
        ) as connection:
            (actor,) = connection.execute(_ACTOR).fetchone()
            cluster_id = connection.execute(_CLUSTER_ID).fetchone() or (0,)
            missing: dict[str, int] = {}
            for query in (_GAPS, _PARTS):
                for each, count in connection.execute(query):
                    missing[each] = missing.get(each, 0) + count
            pops = {
                actor_id: Pop(node_id, region)
                for actor_id, node_id, region in connection.execute(_POPS)
            }
            counts = [connection.execute(query).fetchone()[0] for query in _COUNTS]
            return Facts(actor, int(cluster_id[0]), pops, missing, sum(counts))
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise EngineError(f"the state {path} cannot be read: {error}") from None
