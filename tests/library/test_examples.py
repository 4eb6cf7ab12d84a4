"""Every example in docs/library.md runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgeproxy

DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
SECTIONS = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
EXAMPLES = {
    section.partition("\n")[0].strip("# "): example
    for section in SECTIONS
    for example in re.findall(r"```python\n(.*?)```", section, re.DOTALL)
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", EXAMPLES[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_every_part_has_an_example() -> None:
    parts = {name for name in edgeproxy.__all__ if name not in ("__version__", "ConfigChange")}
    assert parts <= EXAMPLES.keys()
    assert all(getattr(edgeproxy, name).__doc__ for name in parts)


def test_what_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        _ = edgeproxy.Nothing
