"""What users install: the packages are complete, and without a compiler everything works."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.system.proxy import RunningProxy, clean_environment, run_edgeproxy
from tools.build import build

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

INDEX_FAULTS = ("NewConnectionError", "ConnectTimeoutError", "ProxyError", "ReadTimeoutError")
"""What pip says when it cannot reach its index."""


FAULTY = {
    "cryptography": ("44.0.0", "46.0.4", "46.0.6", "48.0.0", "49.0.0"),
    "h11": ("0.14.0",),
    "h2": ("4.2.0",),
}
"""Releases with a published advisory, by package."""


@pytest.mark.parametrize("package", FAULTY)
def test_no_release_with_a_published_fault_is_admitted(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    admitted = [each for each in map(Requirement, wanted) if each.name == package]
    assert admitted
    for requirement in admitted:
        for release in FAULTY[package]:
            assert release not in requirement.specifier, f"{requirement} admits {release}"


def skip_without_index(output: str) -> None:
    """Skip if this is the output of a pip that could not reach its index."""
    for fault in INDEX_FAULTS:
        if fault in output:
            pytest.skip(f"pip cannot reach its index: {fault}")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source package and the wheel of this tree."""
    try:
        return build(tmp_path_factory.mktemp("dist"), quiet=True)
    except Exception as error:
        skip_without_index(str(error))
        raise


def install(folder: Path, package: Path, **variables: str) -> Path:
    """Install a package into a fresh environment; return where its programs are."""
    venv.create(folder / "venv", with_pip=False)
    programs = folder / "venv" / "bin"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"),
            *("--disable-pip-version-check", str(package)),
        ],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        skip_without_index(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return programs


def engine_told(folder: Path, programs: Path) -> tuple[str, str]:
    """Return the engine that `--version` names, and the one that `serve` runs on."""
    version = run_edgeproxy("--version", folder=folder, command=[str(programs / "edgeproxy")])
    assert version.returncode == 0, version.stderr
    command = [str(programs / "edge-proxy")]
    with RunningProxy(folder, {"EDGEPROXY_ENGINE": "auto"}, command=command) as proxy:
        proxy.wait_until_ready()
        serving = proxy.seen("ready")[0]["engine"]
    return version.stdout.rpartition("(engine: ")[2].rstrip(")\n"), serving


def check_portable(folder: Path, programs: Path) -> None:
    """Check that this installation is whole and says what it lacks to who asks for it."""
    assert engine_told(folder, programs) == ("portable", "portable")
    command = [str(programs / "edgeproxy")]
    refused = run_edgeproxy("serve", folder=folder, command=command, EDGEPROXY_ENGINE="native")
    assert refused.returncode == 2
    assert "EDGEPROXY_ENGINE=native" in refused.stderr
    assert "C compiler" in refused.stderr
    assert "portable" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_wheel_brings_the_native_engine(tmp_path: Path, packages: tuple[Path, Path]) -> None:
    _, wheel = packages
    programs = install(tmp_path, wheel)
    assert engine_told(tmp_path, programs) == ("native", "native")


def test_the_native_engine_may_be_left_out(tmp_path: Path, packages: tuple[Path, Path]) -> None:
    sources, _ = packages
    programs = install(tmp_path, sources, EDGEPROXY_NO_NATIVE="1")
    check_portable(tmp_path, programs)


def test_an_installation_needs_no_compiler(tmp_path: Path, packages: tuple[Path, Path]) -> None:
    sources, _ = packages
    programs = install(tmp_path, sources, CC="/bin/false")
    check_portable(tmp_path, programs)


def test_the_source_package_brings_what_it_is_built_from(packages: tuple[Path, Path]) -> None:
    sources, wheel = packages
    assert sources.name.endswith(".tar.gz")
    assert wheel.name.split("-")[2] == f"cp3{sys.version_info.minor}"  # of this Python alone
