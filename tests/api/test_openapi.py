"""The OpenAPI document describes what the API does: schemathesis tries it out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.api import Api, running, serve
from tests.system.pop import Pop

pytestmark = pytest.mark.system

NOT_CHECKED = "positive_data_acceptance"
"""A schema cannot say all: which text is an address, or that there is a backend of some id."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with closing(Pop(tmp_path)) as pop:
        pop.backend("always-there")  # or /ready answers 503 when "a" has been disabled
        api = serve(pop)
        api.register(running(pop, "a"))
        yield api


def test_the_document_names_every_path(api: Api) -> None:
    document = api.ask("GET", "/openapi.json").said
    assert {
        "/health",
        "/ready",
        "/api/v1/register",
        "/api/v1/heartbeat/{id}",
        "/api/v1/backends",
        "/api/v1/backends/{id}",
    } <= set(document["paths"])
    body = document["components"]["schemas"]["Registration"]
    assert set(body["required"]) == {"id", "app", "region", "ip", "port"}
    defaults = {name: each.get("default") for name, each in body["properties"].items()}
    assert (defaults["weight"], defaults["soft_limit"], defaults["hard_limit"]) == (2, 100, 150)


def test_what_is_described_is_what_happens(api: Api, tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *("--exclude-checks", NOT_CHECKED, "--max-examples", "15", "--seed", "1"),
            *("--phases", "examples,coverage,fuzzing", "--no-color"),
            f"{api.url}/openapi.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
