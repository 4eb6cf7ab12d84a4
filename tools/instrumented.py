"""Builds of the native extension with other compiler flags, and a Python that runs on one.

They are made of a copy of the sources under `build/sanitize/`, so that the build which the
checkout itself runs on, and its `.venv`, are never touched. Cython and setuptools live in an
environment of their own there, made once; the C code is generated once for all builds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "sanitize"
TREE = FOLDER / "tree"
COPIED = ("src", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
MODULES = sorted(
    file.stem
    for file in (ROOT / "src/edgeproxy/engine/native").rglob("*.pyx")
    if not file.stem.startswith("stub_")
)
WARM_PYTEST = """
import sys, threading, pytest
thread = threading.Thread(target=int)
thread.start()
thread.join()
sys.exit(pytest.main(sys.argv[1:]))
"""
"""pytest after a first thread: some runtimes then start a thread of their own, which the tests
would otherwise take for one that an engine has left behind."""


class UnusableError(Exception):
    """Something that is needed is not here; the message says what to do."""


@dataclass(frozen=True)
class Build:
    """One way to build the extension.

    Attributes:
        name: Of its folder.
        flags: For the compiler and the linker.
        libraries: What has to be loaded before anything else, as gcc names it.
    """

    name: str
    flags: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is built, and where its findings go."""
        return FOLDER / self.name

    @property
    def told(self) -> Path:
        """Where the tests write."""
        return self.folder / "tests.log"

    @property
    def said(self) -> Path:
        """Where the sanitizer writes."""
        return self.folder / "sanitizer.log"

    def make(self) -> None:
        """Build it. Raises UnusableError if it cannot be built."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        flags = " ".join((*self.flags, "-g", "-fno-omit-frame-pointer"))
        command = [_python_with_cython(), "setup.py", "build"]
        command += ["--build-base", str(self.folder), "--build-lib", str(self.folder / "lib")]
        log = self.folder / "build.log"
        with log.open("w") as output:
            code = subprocess.run(
                command,
                cwd=TREE,
                env={**_environment(), "CC": "gcc", "CFLAGS": flags, "LDFLAGS": flags},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        # A module that does not compile is a warning to setup.py, which goes on without it.
        built = [path.name.partition(".")[0] for path in self.folder.glob("lib/**/*.so")]
        if code or sorted(built) != MODULES:
            raise UnusableError(f"{self.name}: the extension could not be built; see {log}")

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment in which Python finds this build and no other."""
        preloaded = " ".join(_library(name) for name in self.libraries)
        return {
            **_environment(),
            **({"LD_PRELOAD": preloaded} if preloaded else {}),
            "PYTHONPATH": os.pathsep.join((str(self.folder / "lib"), str(TREE))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }


def pytest_command(*arguments: str) -> list[str]:
    """Return a command that runs tests over the native engine, from the folder `TREE`."""
    # Its own capturing would swallow what a sanitizer says, its own handler a crash.
    own = ("-q", "-k", "native", "--capture=sys", "-p", "no:faulthandler", "-p", "no:cacheprovider")
    return [sys.executable, "-c", WARM_PYTEST, *own, *arguments]


def copy_sources() -> None:
    """Take a fresh copy of the sources, without anything built."""
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    unwanted = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, TREE / name, ignore=unwanted)
        else:
            shutil.copy2(source, TREE / name)


def _environment() -> dict[str, str]:
    """Return the caller's environment without what would change what is built or run."""
    foreign = ("EDGEPROXY_", "PYTHON", "LD_PRELOAD", "CFLAGS", "LDFLAGS")
    return {key: text for key, text in os.environ.items() if not key.startswith(foreign)}


def _python_with_cython() -> str:
    """Return a Python that has what pyproject.toml requires of one that builds."""
    folder = FOLDER / "venv"
    python, done = str(folder / "bin" / "python"), folder / ".done"
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    if not done.exists() or done.read_text().splitlines() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        quietly = ("--quiet", "--disable-pip-version-check")
        if subprocess.run(
            [python, "-m", "pip", "install", *quietly, *wanted], check=False
        ).returncode:
            raise UnusableError(f"could not be installed (see above): {', '.join(wanted)}")
        done.write_text("\n".join(wanted))
    return python


def _library(name: str) -> str:
    """Return where a library of gcc is."""
    if shutil.which("gcc") is None:
        raise UnusableError("gcc is not here; on Debian and Ubuntu: apt-get install gcc")
    asked = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    path = asked.stdout.strip()
    if not os.path.isabs(path):
        raise UnusableError(f"gcc is here without {name}; on Fedora: dnf install {name[:-3]}")
    return path
