"""Every shell block of every document is run, in its order, by a real shell.

A document is read as one person would type it: its blocks run in one shell, in a network namespace
that has the addresses of the documents. Absolute paths lead into a folder of the test. What cannot
be run here is named below with the reason, and nothing else is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.authority import authority_pem, issued
from tests.store.server import Database
from tests.system.namespaces import Host, need_namespaces
from tests.system.proxy import clean_environment
from tests.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(?:sh|bash|shell)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if BLOCK.search(path.read_text("utf-8"))
)
ASSIGNMENT = re.compile(r"\w+=\S*( +#.*)?")
PREFIXES = re.compile(r"(?<![\w.])/(opt|etc|run|var)/")
POP = "10.50.0.1"
BACKEND_HERE = {"docs/api.md": "10.50.1.1"}
"""Where a backend runs on the host of the POP."""

INSTEAD = {
    # they are what runs the tests, or take minutes
    r"\./task (demo|test|check|format|build|packages|profile|sanitize|fuzz|storm|bench)\b.*": "",
    r"\./task (sim|model)\b.*": "",
    # tests/test_packaging.py installs
    r"(\S+)/pip install \.( +#.*)?": r'ln -s "$HOME/programs/edgeproxy" \1/edgeproxy',
    r"pip install '\.\[postgres\]'": "",
    # it goes on until somebody presses Ctrl+C
    r"(edgeproxy top\b.*)": r"timeout --preserve-status -s INT 3 \1",
    # the reader has one by now
    r"task db-init": "rm routing.db && task db-init",
    # no package has it
    r"corrosion .*": "",
    # needs a container engine
    r"docker .*": "",
}
"""What is run instead of a line, and why. A continued line is one line."""

NODE = "edgeproxy node add sa-node-1 sa 10.50.1.1\n"
DATABASE = "edgeproxy db init --db /var/lib/edgeproxy/routing.db\n"
BEFORE = {
    "docs/api.md": f"export EDGEPROXY_LISTEN_ADDR={POP}:8080\n",
    "docs/guards.md": f"{NODE}edgeproxy serve\n",
    "docs/node-management.md": NODE,
    "docs/operations.md": f"{NODE}{DATABASE}",
    "docs/postgres.md": NODE.replace("sa-node-1", "sa-node-2"),
    "docs/pt-BR/node-management.md": NODE,
}
"""What the reader of a document has already."""

ON_POSTGRES = {"docs/postgres.md": "postgres://edgeproxy:secret@postgres:5432/edgeproxy"}
"""The documents that need a server, and its URL in them."""

SERVED = """\
#!/bin/sh
# `edgeproxy serve` would hold the shell: it goes on in the background here.
[ "$1" = serve ] || exec "$REAL" "$@"
"$REAL" "$@" >"$HOME/serve.out" 2>"$HOME/serve.log" </dev/null &
echo $! >>"$HOME/pids"
for _ in $(seq 600); do
    if grep -q '^[^ ]* *ready\\|^ready' "$HOME/serve.log"; then exit 0; fi
    kill -0 $! || break
    sleep 0.1
done
cat "$HOME/serve.log" >&2
exit 1
"""
TASK = f"""\
#!/bin/sh
EDGEPROXY_DB_PATH="${{EDGEPROXY_DB_PATH:-$PWD/routing.db}}" exec {ROOT}/task "$@"
"""
OWN_SERVER = """\
#!/bin/sh
# Serves until it is registered.
python3 -m http.server --bind 10.50.1.1 9000 >"$HOME/myserver.log" 2>&1 &
until curl -s http://10.50.0.1:8081/api/v1/backends | grep -q '"port": *9000'; do sleep 0.1; done
kill $!
"""


def runnable(block: str) -> str:
    """Return what is run for a block."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    if all(map(ASSIGNMENT.fullmatch, code)):
        return checks(code)
    return "\n".join(map(replaced, lines)) + "\n"


def replaced(line: str) -> str:
    """Return what is run instead of a line, mostly itself."""
    for pattern, instead in INSTEAD.items():
        if found := re.fullmatch(pattern, line):
            return found.expand(instead)
    return line


def checks(assignments: list[str]) -> str:
    """Return the commands that check these settings: alternatives of a variable one by one."""
    rounds: list[dict[str, str]] = [{}]
    for line in assignments:
        name = line.partition("=")[0]
        if name in rounds[-1]:
            rounds.append({})
        rounds[-1][name] = line.partition(" #")[0].strip()
    return "".join(f"env {' '.join(each.values())} edgeproxy config check\n" for each in rounds)


def prepare(folder: Path) -> dict[str, str]:
    """Lay out what the documents take for granted; return the environment."""
    programs = folder / "programs"
    for each in ("programs", "etc/edgeproxy/certs", "opt", "run/edgeproxy", "var/lib/edgeproxy"):
        (folder / each).mkdir(parents=True)
    for name, text in (("edgeproxy", SERVED), ("task", TASK), ("myserver", OWN_SERVER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    live = folder / "etc/letsencrypt/live/example.com"
    cert, key = issued("example.com").put(folder / "pair", "edge")
    live.mkdir(parents=True)
    shutil.copy(cert, live / "fullchain.pem")
    shutil.copy(key, live / "privkey.pem")
    (folder / "etc/edgeproxy/backends-ca.pem").write_bytes(authority_pem())
    return clean_environment(
        HOME=str(folder),
        EDGEPROXY_CONTROL_SOCKET=str(folder / "control"),
        REAL=str(Path(sys.executable).with_name("edgeproxy")),
        PATH=f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    )


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each not in ON_POSTGRES])
def test_every_shell_block_runs(document: str, tmp_path: Path) -> None:
    need_namespaces()
    with Host("document") as host:
        for each in {POP, BACKEND_HERE.get(document, POP)}:
            host.ip("address", "add", f"{each}/32", "dev", "lo")
        run(document, script_of(document), tmp_path, host.command)


@pytest.mark.parametrize("document", ON_POSTGRES)
def test_every_shell_block_runs_on_a_server(
    document: str, postgres: Database, tmp_path: Path
) -> None:
    script = script_of(document).replace(ON_POSTGRES[document], postgres.url)
    assert postgres.url in script
    run(document, f"export EDGEPROXY_LISTEN_ADDR=127.0.0.1:0\n{script}", tmp_path, list)


def script_of(document: str) -> str:
    """Return what a reader types who follows a document to its end."""
    text = (ROOT / document).read_text("utf-8")
    return BEFORE.get(document, "") + "".join(map(runnable, BLOCK.findall(text)))


def run(
    document: str, script: str, folder: Path, command: Callable[[Sequence[str]], Sequence[str]]
) -> None:
    """Run a script in a shell, which must succeed; end what it leaves in the background."""
    environment = prepare(folder)
    script = PREFIXES.sub(rf"{folder}/\1/", script)
    pids = folder / "pids"
    try:
        done = subprocess.run(
            command(["bash", "-euxc", script]),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        left = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not any(map(is_running, left)), "the end of the proxies")
    assert done.returncode == 0, f"{document}:\n{done.stdout}{done.stderr}"


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; one that nobody has reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
