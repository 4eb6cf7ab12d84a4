"""Makes the packages: `python -m tools.build [--to FOLDER]`, by default in dist/.

First the source package, then from that, as anybody would who has nothing else, the wheel,
each in an environment of its own. A wheel without the native engine is not what is wanted
here, although an installation does without: then the exit code is 1, unless
EDGEPROXY_NO_NATIVE=1 asked for it. `--quiet` shows the output only of what failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
OF_WHEEL = (
    "edgeproxy/__init__.py",
    "edgeproxy/py.typed",
    "edgeproxy/data/dbip-country.mmdb",
    "/licenses/LICENSE",
    "/licenses/NOTICE",
)
SOURCE = ROOT / "src"
NATIVE_ENGINE = sorted(
    file
    for file in (SOURCE / "edgeproxy" / "engine" / "native").rglob("*")
    if file.suffix in {".py", ".pyx", ".pxd", ".pyi"}
)
OF_NATIVE_ENGINE = tuple(
    f"{file.relative_to(SOURCE).with_suffix('')}.cpython-"
    for file in NATIVE_ENGINE
    if file.suffix == ".pyx" and not file.stem.startswith("stub_")
)
OF_SOURCES = (
    "/setup.py",
    "/LICENSE",
    "/NOTICE",
    *(f"/{file.relative_to(ROOT)}" for file in NATIVE_ENGINE),
)


class IncompleteError(Exception):
    """A package could not be made, or lacks something; the message says what."""


def build(to: Path, *, quiet: bool = False) -> tuple[Path, Path]:
    """Make both packages in `to`; return the source package and the wheel.

    Raises IncompleteError, and has then left `to` as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", folder],
            cwd=ROOT,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            text=True,
            check=False,
        )
        if done.returncode:
            raise IncompleteError(f"the packages could not be built\n{done.stdout or ''}")
        (sources,), (wheel,) = Path(folder).glob("*.tar.gz"), Path(folder).glob("*.whl")
        with tarfile.open(sources) as package:
            _expect(OF_SOURCES, package.getnames(), sources)
        with zipfile.ZipFile(wheel) as archive:
            _expect(OF_WHEEL, archive.namelist(), wheel)
            if os.environ.get("EDGEPROXY_NO_NATIVE", "") in ("", "0"):
                _expect(OF_NATIVE_ENGINE, archive.namelist(), wheel)
        to.mkdir(parents=True, exist_ok=True)
        return _moved(sources, to), _moved(wheel, to)


def _expect(wanted: tuple[str, ...], names: list[str], package: Path) -> None:
    if missing := [part for part in wanted if not any(part in name for name in names)]:
        raise IncompleteError(f"{package.name} lacks {', '.join(missing)}")


def _moved(package: Path, to: Path) -> Path:
    target = to / package.name
    target.write_bytes(package.read_bytes())
    return target


def main() -> int:
    """Make the packages and name them; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    try:
        packages = build(asked.to, quiet=asked.quiet)
    except IncompleteError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    for package in packages:
        print(f"{package}  ({package.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
