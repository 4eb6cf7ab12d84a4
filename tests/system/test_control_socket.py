"""The control socket of a running proxy: asked and told by the commands of the CLI."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.pop import BRAZIL, Pop
from tests.system.proxy import run_edgeproxy

pytestmark = pytest.mark.system


def tell(pop: Pop, *words: str) -> subprocess.CompletedProcess[str]:
    return run_edgeproxy(
        *words, folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=str(pop.folder / "control")
    )


def serve(pop: Pop, **variables: str) -> None:
    pop.serve(EDGEPROXY_CONTROL_SOCKET=str(pop.folder / "control"), **variables)


def test_a_drained_backend_gets_nobody_new_and_keeps_whom_it_has(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    serve(pop)
    holder, held = pop.holder(BRAZIL)
    assert held == "sa-1"

    assert tell(pop, "drain", "sa-1").stdout == "sa-1 is being drained\n"
    assert pop.reached(BRAZIL) == "us-1"
    holder.end()
    assert holder.rest() == (b"", False)

    pop.proxy.wait_for("backend_drained", backend="sa-1", connections="1")

    assert tell(pop, "undrain", "sa-1").stdout == "sa-1 gets clients again\n"
    assert pop.reached() == "sa-1"
    pop.proxy.wait_for("backend_undrained", backend="sa-1")


def test_draining_survives_a_new_table(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    serve(pop)
    tell(pop, "drain", "sa-1")
    pop.proxy.edit("UPDATE backends SET weight = 7")
    assert pop.reached() == "us-1"


def test_who_is_not_known_is_named(pop: Pop) -> None:
    serve(pop)
    told = tell(pop, "drain", "nobody")
    assert (told.returncode, told.stderr) == (1, "edgeproxy: there is no backend 'nobody'\n")


def test_status_and_sessions_say_what_is_going_on(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.dead_backend("dead", "us")
    serve(pop)
    holder, _ = pop.holder(BRAZIL)
    status = json.loads(tell(pop, "status", "--json").stdout)
    assert (status["active"], status["connections"]) == (1, 1)
    (first, _second) = sorted(status["backends"], key=lambda each: -each["active"])
    assert (first["id"], first["active"], first["circuit"], first["up"]) == (
        "sa-1",
        1,
        "closed",
        None,
    )
    (session,) = json.loads(tell(pop, "sessions", "--json").stdout)
    assert (session["client"], session["backend"], session["how"]) == (BRAZIL, "sa-1", "scored")
    assert session["port"] == holder.sock.getsockname()[1]
    assert "sa-1" in tell(pop, "status").stdout
    assert BRAZIL in tell(pop, "sessions").stdout


def test_status_shows_why_a_backend_gets_nobody(pop: Pop) -> None:
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    serve(pop, EDGEPROXY_METRICS_ENABLED="1", EDGEPROXY_METRICS_LISTEN_ADDR="127.0.0.1:0")
    assert pop.reached(BRAZIL) == "us-1"
    for words in (("status",), ("top", "--count", "1")):
        (shown,) = (line for line in tell(pop, *words).stdout.splitlines() if "dead" in line)
        assert re.search(r"failed lately: refused \d+ s ago$", shown)
    by_id = {
        each["id"]: each for each in json.loads(tell(pop, "status", "--json").stdout)["backends"]
    }
    assert by_id["dead"]["last_error"] == "refused"
    assert by_id["us-1"]["last_error"] is None
    assert by_id["us-1"]["last_error_secs_ago"] is None


def test_status_shows_why_a_backend_is_down(pop: Pop) -> None:
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    probes = {"ENABLED": "1", "INTERVAL_SECS": "0.2", "UNHEALTHY_THRESHOLD": "1"}
    serve(pop, **{f"EDGEPROXY_HEALTH_CHECK_{name}": value for name, value in probes.items()})
    pop.proxy.wait_for("backend_down", backend="dead")
    told = tell(pop, "status").stdout
    (shown,) = (line for line in told.splitlines() if line.startswith("dead"))
    assert re.search(r"down: \S.*$", shown)


def test_status_hides_no_broken_database_skipped_row_listener_or_path(pop: Pop) -> None:
    pop.backend("sa-1")
    access_log = pop.folder / "access.log"
    serve(pop, EDGEPROXY_ACCESS_LOG=str(access_log))
    proxy = pop.proxy
    proxy.edit(
        "INSERT INTO backends VALUES ('bad', 'a', 'sa', 'nowhere', 80, 1, 1, 1, 1, 0);"
        "UPDATE backends SET weight = 2 WHERE id = 'sa-1'"
    )
    told = tell(pop, "status").stdout
    assert f"database  {proxy.database}\n          rows skipped: 1 (bad)\n" in told
    assert f"listeners 127.0.0.1:{proxy.address[1]} (*)\n" in told
    assert f"control   {pop.folder / 'control'}\nlog       {access_log}\n" in told

    proxy.database.write_bytes(b"no database at all " * 1000)
    reason = proxy.wait_for("database_unreadable")["reason"]
    told = tell(pop, "status").stdout
    assert f"database  {proxy.database}: UNREADABLE\n          {reason}\n" in told
    around = json.loads(tell(pop, "status", "--json").stdout)["surroundings"]
    assert (around["database_fault"], around["skipped"]) == (reason, ["bad"])
    assert pop.reached() == "sa-1"


def test_explain_knows_real_load_and_bindings(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    serve(pop)
    pop.holder(BRAZIL)
    live = json.loads(tell(pop, "explain", BRAZIL, "--live", "--json").stdout)
    assert (live["backend"], live["how"], live["bound_to"]) == ("sa-1", "bound", "sa-1")
    (loaded,) = (each for each in live["candidates"] if each["id"] == "sa-1")
    assert loaded["active"] == 1
    assert "bound" in tell(pop, "explain", BRAZIL, "--live").stdout


def test_only_its_owner_may_use_it(pop: Pop) -> None:
    serve(pop)
    assert stat.S_IMODE((pop.folder / "control").stat().st_mode) == 0o600


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(pop: Pop) -> None:
    path = pop.folder / "control"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    serve(pop)
    assert tell(pop, "status").returncode == 0

    other = pop.begin_to_serve(EDGEPROXY_CONTROL_SOCKET=str(path))
    assert other.wait_for_exit() == 1
    assert "another proxy listens there" in "\n".join(other.foreign)
    other.foreign.clear()
    assert tell(pop, "status").returncode == 0


def test_a_file_in_its_place_is_left_alone(pop: Pop) -> None:
    path: Path = pop.folder / "control"
    path.write_text("precious")
    proxy = pop.begin_to_serve(EDGEPROXY_CONTROL_SOCKET=str(path))
    assert proxy.wait_for_exit() == 1
    assert path.read_text() == "precious"
    proxy.foreign.clear()


def test_what_comes_into_its_place_stays_when_the_proxy_ends(pop: Pop) -> None:
    path: Path = pop.folder / "control"
    serve(pop)
    path.unlink()
    path.write_text("precious")
    pop.proxy.stop()
    assert path.read_text() == "precious"


def test_the_socket_of_another_process_stays_when_the_proxy_ends(pop: Pop) -> None:
    path: Path = pop.folder / "control"
    serve(pop)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        pop.proxy.stop()
        assert path.is_socket()


def test_its_own_socket_goes_with_the_proxy(pop: Pop) -> None:
    serve(pop)
    pop.proxy.stop()
    assert not (pop.folder / "control").exists()


def test_a_start_does_not_wait_for_who_listens_there_and_hangs(pop: Pop) -> None:
    path: Path = pop.folder / "control"
    with socket.socket(socket.AF_UNIX) as hanging, contextlib.ExitStack() as callers:
        hanging.bind(str(path))
        hanging.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:  # until its queue is full
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
        proxy = pop.begin_to_serve(EDGEPROXY_CONTROL_SOCKET=str(path))
        assert proxy.wait_for_exit() == 1
        assert "another proxy listens there" in "\n".join(proxy.foreign)
        proxy.foreign.clear()


def test_without_a_proxy_the_commands_say_so(pop: Pop) -> None:
    told = tell(pop, "status")
    assert told.returncode == 1
    assert "No such file" in told.stderr
    unset = run_edgeproxy("status", folder=pop.folder)
    assert unset.returncode == 2
    assert "EDGEPROXY_CONTROL_SOCKET" in unset.stderr


def test_a_configuration_that_is_being_edited_disables_no_command(pop: Pop) -> None:
    pop.backend("sa-1")
    serve(pop)
    file = pop.folder / "edgeproxy.toml"
    socket_path = pop.folder / "control"
    file.write_text(f"[proxy]\nregion = 'EU!'\ncontrol_socket = '{socket_path}'\nregoin = 1\n")
    broken = {"EDGEPROXY_CONFIG": str(file), "EDGEPROXY_DB_RELOAD_SECS": "abc"}
    told = run_edgeproxy("drain", "sa-1", folder=pop.folder, **broken)
    assert (told.returncode, told.stdout) == (0, "sa-1 is being drained\n")

    file.write_text("[proxy")
    told = run_edgeproxy("sessions", folder=pop.folder, **broken)
    assert told.returncode == 2
    assert "set EDGEPROXY_CONTROL_SOCKET" in told.stderr
    assert "is not valid TOML" in told.stderr
    broken["EDGEPROXY_CONTROL_SOCKET"] = str(socket_path)
    for words in (("status",), ("sessions",), ("top", "--count", "1"), ("undrain", "sa-1")):
        assert run_edgeproxy(*words, folder=pop.folder, **broken).returncode == 0


def test_top_shows_what_happened_since_the_last_look(pop: Pop) -> None:
    pop.backend("sa-1")
    serve(pop)
    pop.holder(BRAZIL)
    seen = tell(pop, "top", "--interval", "0.1", "--count", "2").stdout
    assert seen.count("sa-1") == 2
    assert "clients  1 now" in seen
    assert tell(pop, "top", "--interval", "0").returncode == 2


def test_top_keeps_to_the_screen_and_leaves_it_as_it_was(pop: Pop) -> None:
    for number in range(40):
        pop.dead_backend(f"node-{number}")
    serve(pop)
    shown = subprocess.run(
        [
            "script",
            "-qec",
            "edgeproxy top --interval 0.1 --count 3",
            "/dev/null",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=pop.folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "EDGEPROXY_CONTROL_SOCKET": str(pop.folder / "control"),
            "LINES": "20",
            "COLUMNS": "120",
        },
    ).stdout
    first, *_ = shown.partition("\x1b[?1049h")[2].split("\x1b[H")[1:]
    assert first.count("\n") <= 20
    assert shown.rstrip().endswith("\x1b[?1049l")
