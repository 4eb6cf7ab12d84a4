"""A storm of flapping backends takes no cut client for granted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from bench.storm.backend import Backend
from bench.storm.flapping import ACCESS_LOG, Flapping
from bench.storm.proxy import Proxy
from bench.storm.report import Report

CLIENT = "127.70.0.1"
RESET = {"client": CLIENT, "backend": "node-1", "end": "backend_reset", "bytes_out": 0}


@pytest.mark.parametrize(
    ("lines", "resets", "unexplained"),
    [
        ([RESET], 1, 0),
        ([RESET, {**RESET, "client": "127.70.0.2"}], 2, 0),  # who left before knowing it was cut
        ([RESET], 0, 1),  # the proxy says so, and the backend did not
        ([{**RESET, "backend": "node-0"}], 1, 1),
        ([{**RESET, "end": "client_reset"}], 1, 1),
        ([{**RESET, "bytes_out": 8}], 1, 1),
        ([{**RESET, "client": "127.70.0.2"}], 1, 1),
        ([], 1, 1),
    ],
)
def test_a_client_may_be_cut_only_by_a_reset_of_its_backend(
    tmp_path: Path, lines: list[dict[str, object]], resets: int, unexplained: int
) -> None:
    backends = [Backend(0), Backend(1)]
    backends[1].reset_count = resets
    (tmp_path / ACCESS_LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    flapping = Flapping(Proxy(tmp_path, "portable", {}), backends, 1, asyncio.Event())
    report = Report("portable")
    flapping.tell(report, Counter({CLIENT: 1}))
    assert report.rows["cut by no backend"] == (str(unexplained), not unexplained)
