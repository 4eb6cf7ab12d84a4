"""The layout: imports go one way, tests mirror the source, files can be read in one sitting."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "edgeproxy"
TESTS = Path(__file__).parent

LAYERS = (
    {"errors", "log", "version"},
    {"core", "engine"},
    {"values"},
    {"wire", "control"},
    {"store", "gate", "tls", "library"},
    {"registry", "listeners"},
    {"api"},
    {"config"},
    {"process"},
    {"cli", "__init__"},
    {"__main__"},
)
"""From the innermost to the outermost; a room imports only what is further in than itself."""

WRONG = {
    ("listeners", "config"),
    ("registry", "api"),
}
"""Arrows that are still to be turned."""

IMPURE = {"asyncio", "logging", "os", "random", "socket", "sqlite3", "ssl", "time"}
MOST_LINES = 400
MAY_BE_LONGER = {"engine/portable/engine.py", "engine/native/engine.pyx"}
"""One loop each, that would not become clearer in pieces."""

ROOMS = {name for names in LAYERS for name in names} - {"library"}

MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
CYTHON = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.p[yx][xd]"))


def imported(module: str) -> set[str]:
    """Return the full names of everything a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_parts(module: str) -> set[str]:
    """Return the parts of edgeproxy that a module imports."""
    return {name.split(".")[1] for name in imported(module) if name.startswith("edgeproxy.")}


def part(module: str) -> str:
    """Return the part of edgeproxy that a module belongs to."""
    return Path(module).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    """Return how far out a part is."""
    (found,) = [number for number, names in enumerate(LAYERS) if name in names]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_inwards(module: str) -> None:
    own = part(module)
    for name in own_parts(module) - {own}:
        assert layer(name) < layer(own) or (own, name) in WRONG, f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) in {"core", "wire"}])
def test_core_touches_nothing_of_the_world(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(module)}
    assert not roots & IMPURE
    assert own_parts(module) <= {"core", "wire", "errors"}


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) == "wire"])
def test_codecs_raise_only_wire_errors(module: str) -> None:
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise):
            assert isinstance(node.exc, ast.Call), f"{module}:{node.lineno}"
            assert ast.unparse(node.exc.func) == "WireError", f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES + CYTHON)
def test_files_can_be_read_in_one_sitting(module: str) -> None:
    lines = len((SOURCE / module).read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES or module in MAY_BE_LONGER


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse((SOURCE / module).read_text(encoding="utf-8")))


def test_tests_mirror_the_source() -> None:
    orphans = [
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if path.relative_to(TESTS).parts[0] in ROOMS
        and path.parts[-2] != "conformance"
        and not (SOURCE / path.relative_to(TESTS).with_name(path.name[5:])).exists()
    ]
    assert not orphans


def test_what_serves_the_first_client_does_not_import_asyncio() -> None:
    """A bare proxy starts fast: the control plane is imported when clients are served."""
    code = (
        "import sys, edgeproxy.process.app, edgeproxy.engine.portable.engine\n"
        "late = {'asyncio', 'asyncpg', 'h11', 'h2', 'prometheus_client', 'cryptography',\n"
        "        'edgeproxy.tls.certificates', 'msgspec', 'starlette', 'uvicorn'}\n"
        "late &= set(sys.modules)\n"
        "assert not late, late"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
