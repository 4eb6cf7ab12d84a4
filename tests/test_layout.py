"""The layout: imports go one way, tests mirror the source, files can be read in one sitting."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "edgeproxy"
TESTS = Path(__file__).parent

LADDER = (
    {"errors", "host_name", "log", "standstill", "version"},
    {"core", "engine"},
    {"values", "regular_file"},
    {"wire", "control"},
    {"store", "gate", "tls", "library"},
    {"registry", "listeners", "cluster"},
    {"api"},
    {"config"},
    {"process"},
    {"cli", "__init__"},
    {"__main__"},
)
"""From the innermost to the outermost; a room imports only what is further in than itself."""

CORE_LADDER = (
    {"metrics", "pacing"},
    {"lazy_heap"},
    {"geo"},
    {"backends"},
    {"routing", "cluster"},
    {"admission"},
)
STORE_LADDER = (
    {"edits", "leases", "snapshot"},
    {"difference", "snapshot_file"},
    {"sqlite", "postgres"},
    {"feed", "migration"},
    {"choice"},
)
"""The same inside two rooms. The two kinds of database do not know each other."""

IMPURE = {"asyncio", "logging", "os", "random", "socket", "sqlite3", "ssl", "time"}
MAX_LINES = 400
MAX_MODULES = 12

ROOMS = set().union(*LADDER)
NATIVE = {".pyx", ".pxd"}
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
CYTHON = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.p[yx][xd]"))

TESTED_ELSEWHERE = {
    ("", "system/test_commands.py"): "__main__",
    (
        "api/",
        "system/test_api.py, test_api_guard.py",
    ): "api application home operations settings",
    (
        "cli/",
        "system/test_commands.py, test_configuration.py, test_demo.py, test_register.py",
    ): (
        "config database/migrate database/opening database/options "
        "database/output demo/command demo/connection demo/environment demo/proxy register "
        "running/drain running/explain running/upgrade serve"
    ),
    ("cli/demo/cluster/", "system/test_cluster_demo.py"): "environment pop steps visitors",
    ("cli/", "system/test_control_socket.py, test_top.py"): "running/options running/top",
    ("api/http1/", "api/http1/test_connection.py"): "message",
    ("cluster/", "cluster/bridge/test_bridge.py, conformance/"): "engine",
    ("cluster/", "system/test_cluster.py"): ("agent builtin/members choice supervisor"),
    ("cluster/sessions/", "cluster/sessions/test_transport.py"): "dials",
    ("config/", "config/test_load.py"): "file table",
    ("control/admin/", "system/test_control_socket.py"): "unix_socket",
    ("control/", "system/test_config_reload.py"): "file_watch",
    ("control/", "system/test_followed_files.py"): "start_watch",
    (
        "control/health/",
        "control/health/test_probe.py, system/test_health_checks.py",
    ): "grpc health_checks http opening",
    ("core/admission/", "system/test_access_log.py"): "record",
    ("core/admission/", "core/admission/test_admission.py"): "ticket",
    (
        "core/backends/",
        "core/admission/test_admission.py, core/backends/test_rows.py",
    ): "backend live_state local_overrides",
    ("core/cluster/", "core/cluster/test_replica.py"): "counters",
    ("core/geo/", "core/geo/test_locator.py"): "origin",
    (
        "core/cluster/swim/",
        "core/cluster/swim/test_membership.py",
    ): "lists messages probing/prober pulls rng tuning voice",
    ("core/", "gate/test_gate.py"): "metrics",
    ("core/routing/", "core/routing/test_selection.py"): "choice",
    (
        "engine/",
        "conformance/",
    ): (
        "commands contract dial guarded_gate portable/acceptor portable/dialer "
        "portable/engine portable/ingress/accepted portable/ingress/handshake "
        "portable/ingress/preread portable/ingress/slot_queue portable/lingering "
        "portable/pipe portable/relay portable/session portable/timeouts portable/tls_context "
        "session_states sockets tls"
    ),
    (
        "gate/",
        "conformance/test_preambles.py, system/test_proxy_protocol.py, test_sni.py",
    ): "preamble proxy_header_writer",
    ("gate/", "gate/test_gate.py, system/test_access_log.py"): "connection_records",
    (
        "library/",
        "library/test_parts.py, test_examples.py",
    ): (
        "circuit_breaker config_watcher connection_pool health_checker prometheus_metrics "
        "rate_limiter registration shutdown_controller"
    ),
    ("listeners/", "system/test_listeners.py, test_listener_reload.py"): "listeners settings",
    (
        "process/",
        "system/test_lifecycle.py, test_shutdown.py",
    ): "app drain endpoints reload removal systemd watchdog",
    ("registry/", "system/test_api.py, test_api_on_postgres.py"): "errors registry settings",
    ("registry/", "system/test_own_addresses.py"): "own_callers",
    (
        "store/",
        "store/conformance/",
    ): "choice edits leases postgres/connection postgres/nodes postgres/routes snapshot",
    ("tls/", "tls/test_certificates.py"): "folder settings",
    ("", "cli/test_version.py"): "version",
}
"""Modules of a folder without a test file of their own, and what tests them instead."""

USED_FROM_OUTSIDE = {
    "api/http1/connection.py",  # asyncio and httptools
    "cli/__init__.py serve_main",  # the entry point of edge-proxy
    "engine/session_states.py",  # the conformance suite
    "library/",  # programs of others
    "log.py emit",  # logging
}
"""Definitions, or folders of them, that something outside of the source calls."""


def imported(module: str) -> set[str]:
    """Return the full names of everything a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_rooms(module: str) -> set[str]:
    """Return the rooms of edgeproxy that a module imports."""
    return {name.split(".")[1] for name in imported(module) if name.startswith("edgeproxy.")}


def room(module: str) -> str:
    """Return the room that a module belongs to."""
    return Path(module).parts[0].removesuffix(".py")


def rung(name: str, ladder: tuple[set[str], ...] = LADDER) -> int:
    """Return how far out a room is."""
    (found,) = [number for number, names in enumerate(ladder) if name in names]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_inwards(module: str) -> None:
    own = room(module)
    for name in own_rooms(module) - {own}:
        assert rung(name) < rung(own), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in {"core", "store"}])
def test_imports_inside_a_room_go_inwards(module: str) -> None:
    outer = room(module)
    own = Path(module).parts[1].removesuffix(".py")
    ladder = CORE_LADDER if outer == "core" else STORE_LADDER
    names = [name.split(".") for name in imported(module)]
    parts = {name[2] for name in names if name[:2] == ["edgeproxy", outer]}
    for name in parts - {own}:
        assert own != "__init__", f"{module} imports {name}"
        assert rung(name, ladder) < rung(own, ladder), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in {"core", "wire"}])
def test_core_touches_nothing_of_the_world(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(module)}
    assert not roots & IMPURE
    assert own_rooms(module) <= {"core", "wire", "errors", "host_name"}


@pytest.mark.parametrize("module", MODULES)
def test_no_cancellation_is_lost(module: str) -> None:
    """`asyncio.wait_for` of Python 3.11 loses one that comes as its result does: use `timeout`."""
    assert "asyncio.wait_for(" not in (SOURCE / module).read_text(encoding="utf-8")


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "engine"])
def test_the_engine_knows_no_backend(module: str) -> None:
    assert own_rooms(module) <= {"engine", "errors", "host_name", "log", "standstill"}


@pytest.mark.parametrize("module", CYTHON)
def test_the_native_engine_knows_no_backend(module: str) -> None:
    lines = (SOURCE / module).read_text(encoding="utf-8").splitlines()
    known = tuple(
        f"edgeproxy.{room}" for room in ("engine.", "errors ", "host_name ", "log ", "standstill ")
    )
    for line in lines:
        if line.startswith("from edgeproxy"):
            assert line.removeprefix("from ").startswith(known), line


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "wire"])
def test_codecs_raise_only_wire_errors(module: str) -> None:
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise):
            assert isinstance(node.exc, ast.Call), f"{module}:{node.lineno}"
            assert ast.unparse(node.exc.func) == "WireError", f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES + CYTHON)
def test_files_can_be_read_in_one_sitting(module: str) -> None:
    lines = len((SOURCE / module).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES


def test_folders_can_be_taken_in_at_a_glance() -> None:
    stems = {
        path.relative_to(SOURCE).with_suffix("")
        for path in SOURCE.rglob("*.p[yx]*")
        if path.suffix in {".py", ".pyx"} and path.stem != "__init__"
    }
    sizes = Counter(stem.parent.as_posix() for stem in stems)
    assert {name: size for name, size in sizes.items() if size > MAX_MODULES} == {}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse((SOURCE / module).read_text(encoding="utf-8")))


def test_every_test_file_has_its_module() -> None:
    orphans = [
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if path.relative_to(TESTS).parts[0] in ROOMS - {"library"}
        and path.parts[-2] != "conformance"
        and not (SOURCE / path.relative_to(TESTS).with_name(path.name[len("test_") :])).exists()
    ]
    assert not orphans


def test_every_module_has_its_test_file() -> None:
    bare = [
        module
        for module in MODULES
        if Path(module).name != "__init__.py"
        and not (TESTS / Path(module).with_name(f"test_{Path(module).name}")).exists()
    ]
    listed = [
        f"{folder}{name}.py"
        for (folder, _), names in TESTED_ELSEWHERE.items()
        for name in names.split()
    ]
    assert sorted(listed) == bare


def test_what_tests_a_module_elsewhere_exists() -> None:
    for _, where in TESTED_ELSEWHERE:
        folder = TESTS
        for place in where.split(", "):
            path = TESTS / place if "/" in place else folder / place
            assert path.exists(), place
            folder = path.parent


def test_every_definition_is_used() -> None:
    used: Counter[str] = Counter()
    for path in SOURCE.rglob("*"):
        if path.suffix == ".py" or path.suffix in NATIVE:
            text = path.read_text(encoding="utf-8")
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type == tokenize.NAME:
                    used[token.string] += 1
                elif token.type == tokenize.STRING:
                    # Such as in __slots__, getattr or an f-string.
                    words = re.findall(r"\w+", token.string)
                    used.update(words if token.string[0] == "f" else words[:1])
    unused = [
        f"{module} {name}"
        for module in MODULES
        for name in defined_in(module)
        if used[name] < 2 and not name.startswith("__")
    ]
    assert [each for each in unused if not each.startswith(tuple(USED_FROM_OUTSIDE))] == []


def defined_in(module: str) -> list[str]:
    """Return the names that a module defines: classes, functions, methods, constants."""
    names = []
    for node in ast.walk(ast.parse((SOURCE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            targets = [each.id for each in node.targets if isinstance(each, ast.Name)]
            names += [each for each in targets if each.isupper()]
    return names


def test_what_serves_the_first_client_does_not_import_asyncio() -> None:
    """A bare proxy starts fast: the control plane is imported when clients are served."""
    code = (
        "import sys, edgeproxy.process.app, edgeproxy.engine.portable.engine\n"
        "late = {'aioquic', 'asyncio', 'asyncpg', 'cryptography', 'edgeproxy.tls.certificates',\n"
        "        'h11', 'h2', 'msgspec', 'prometheus_client', 'starlette'}\n"
        "late &= set(sys.modules)\n"
        "assert not late, late"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
