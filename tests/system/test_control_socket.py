"""The control socket of a running proxy: asked and told by the commands of the CLI."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.pop import BRAZIL, NOWHERE, Pop
from tests.system.proxy import EDGEPROXY, SERVE, RunningProxy, run_edgeproxy

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

    assert tell(pop, "undrain", "sa-1").stdout == "sa-1 is no longer drained\n"
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
    pop.backend("sa-1")
    serve(pop)
    for name, meant in (("nobody", ";"), ("sa-9", "; did you mean sa-1?")):
        told = tell(pop, "drain", name)
        assert (told.returncode, told.stderr) == (
            1,
            f"edgeproxy: there is no backend '{name}'{meant} `edgeproxy status` lists all\n",
        )


def test_status_and_sessions_say_what_is_going_on(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.dead_backend("dead", "us")
    serve(pop)
    holder, _ = pop.holder(BRAZIL)
    status = json.loads(tell(pop, "status", "--json").stdout)
    assert (status["active"], status["connections"]) == (1, 1)
    assert status["pid"] == pop.proxy.pid
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
    assert f"{pop.folder / 'control'}: there is no such socket" in told.stderr
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(pop.folder / "control"))
    told = tell(pop, "status")
    assert told.returncode == 1
    assert f"{pop.folder / 'control'}: nobody listens there any more" in told.stderr
    unset = run_edgeproxy("status", folder=pop.folder)
    assert unset.returncode == 2
    assert "EDGEPROXY_CONTROL_SOCKET='off': the proxy has no control socket" in unset.stderr
    assert "--socket" in unset.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("sessions",),
        ("top", "--count", "1"),
        ("explain", BRAZIL, "--live"),
        ("explain", BRAZIL),
        ("drain", "sa-1"),
        ("undrain", "sa-1"),
    ],
)
def test_every_command_takes_the_path_of_the_socket(pop: Pop, words: tuple[str, ...]) -> None:
    pop.backend("sa-1")
    folder = pop.folder / "made" / "control"
    pop.serve(EDGEPROXY_CONTROL_SOCKET=str(folder))
    done = run_edgeproxy(*words, "--socket", str(folder), folder=pop.folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_upgrade_takes_the_path_of_the_socket_too(pop: Pop) -> None:
    path = pop.folder / "control"
    proxy = pop.serve(EDGEPROXY_CONTROL_SOCKET=str(path))
    done = run_edgeproxy("upgrade", "--socket", str(path), folder=pop.folder)
    os.kill(int(proxy.wait_for("upgraded")["successor"]), signal.SIGTERM)
    assert (done.returncode, done.stderr) == (0, "")
    assert proxy.wait_for_exit() == 0


def test_a_folder_that_cannot_be_made_ends_the_start_and_is_named(pop: Pop) -> None:
    path = pop.folder / "none" / "of" / "these"
    proxy = pop.begin_to_serve(EDGEPROXY_CONTROL_SOCKET=str(path))
    assert proxy.wait_for_exit() == 1
    assert f"EDGEPROXY_CONTROL_SOCKET={str(path)!r}: its folder" in "\n".join(proxy.foreign)
    proxy.foreign.clear()


@pytest.mark.parametrize(
    "variables",
    [
        {"EDGEPROXY_METRICS_ENABLED": "true", "EDGEPROXY_METRICS_LISTEN_ADDR": "192.0.2.1:9090"},
        {"EDGEPROXY_API_ENABLED": "true", "EDGEPROXY_API_LISTEN_ADDR": "192.0.2.1:8081"},
        {"EDGEPROXY_API_ENABLED": "true", "EDGEPROXY_API_TOKEN_FILE": "missing"},
    ],
    ids=["metrics", "api", "token"],
)
def test_a_start_that_fails_after_it_was_made_leaves_no_socket(
    pop: Pop, variables: dict[str, str]
) -> None:
    path = pop.folder / "control"
    proxy = pop.begin_to_serve(SERVE, None, EDGEPROXY_CONTROL_SOCKET=str(path), **variables)
    assert proxy.wait_for_exit() in (1, 2)
    assert not path.exists()
    proxy.foreign.clear()


# -- where nothing is set -------------------------------------------------------------------

UNSET = ("env", "-u", "EDGEPROXY_CONFIG", "-u", "EDGEPROXY_CONTROL_SOCKET")
APART = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", *UNSET)
"""Runs a command with nothing set and a /run of its own, so that it may have the default socket."""


def within(proxy: RunningProxy) -> tuple[str, ...]:
    """Return what runs `edgeproxy` with nothing set where this proxy runs."""
    return ("nsenter", "-t", str(proxy.pid), "-m", "--", *UNSET, *EDGEPROXY)


@pytest.fixture
def _apart() -> None:
    done = subprocess.run([*APART, "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs root, to have a /run of its own")


@pytest.mark.usefixtures("_apart")
def test_with_nothing_set_a_proxy_can_be_asked(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve_with((*APART, *SERVE))
    assert proxy.seen("control_socket", path="/run/edgeproxy/control")
    status = run_edgeproxy("status", folder=pop.folder, command=within(proxy))
    assert (status.returncode, status.stderr) == (0, "")
    assert "sa-1" in status.stdout
    file = Path(f"/proc/{proxy.pid}/root/run/edgeproxy/control")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    upgraded = run_edgeproxy("upgrade", folder=pop.folder, command=within(proxy))
    os.kill(int(proxy.wait_for("upgraded")["successor"]), signal.SIGTERM)
    assert upgraded.returncode == 0
    assert proxy.wait_for_exit() == 0


@pytest.mark.usefixtures("_apart")
def test_a_second_proxy_on_the_machine_serves_without_the_default_socket(pop: Pop) -> None:
    pop.backend("sa-1")
    first = pop.serve_with((*APART, *SERVE))
    second = pop.serve_with((*within(first), "serve"), EDGEPROXY_DB_PATH=str(pop.database))
    assert pop.reached() == "sa-1"
    told = second.wait_for("control_socket_missing", level="warning")
    assert "another proxy listens there" in told["reason"]
    assert "EDGEPROXY_CONTROL_SOCKET" in told["hint"]
    assert second.stop()
    status = run_edgeproxy("status", "--json", folder=pop.folder, command=within(first))
    assert json.loads(status.stdout)["connections"] == 0, "the first one still has it"


@pytest.mark.usefixtures("_apart")
def test_where_nothing_runs_the_places_that_were_looked_at_are_named(pop: Pop) -> None:
    nobody = run_edgeproxy(
        *("status",), folder=pop.folder, command=(*APART, *EDGEPROXY), XDG_RUNTIME_DIR="/run/none"
    )
    assert (nobody.returncode, nobody.stdout) == (1, "")
    for path in ("/run/edgeproxy/control", "/run/none/edgeproxy/control"):
        assert f"{path}: there is no such socket" in nobody.stderr
    assert "--socket" in nobody.stderr


@pytest.mark.usefixtures("_apart")
def test_proxy_and_commands_read_the_same_file_by_default(pop: Pop) -> None:
    pop.backend("eu-1", "eu")
    pop.backend("sa-1", "sa")
    settings = pop.folder / "settings"
    settings.write_text(
        "[proxy]\nregion = 'eu'\ncontrol_socket = '/run/mine'\n"
        f"[database]\npath = '{pop.database}'\n"
    )
    script = (
        "mount -t tmpfs none /run && mount -t tmpfs none /etc && mkdir /etc/edgeproxy && "
        f'cp {settings} /etc/edgeproxy/edgeproxy.toml && exec "$@"'
    )
    proxy = pop.serve_with((*APART[:4], script, *APART[5:], *SERVE))
    assert proxy.seen("ready", region="eu")
    assert proxy.seen("control_socket", path="/run/mine")
    for words in (("status",), ("db", "show"), ("explain", NOWHERE), ("config", "show")):
        done = run_edgeproxy(*words, folder=Path("/"), command=within(proxy))
        assert (done.returncode, done.stderr) == (0, ""), words
        assert "eu" in done.stdout, words
    nowhere = (*within(proxy)[:-3], "EDGEPROXY_CONFIG=", *EDGEPROXY)
    done = run_edgeproxy("config", "show", "--json", folder=Path("/"), command=nowhere)
    assert "edgeproxy.toml" not in done.stdout, "an empty variable asks for no file"


def test_a_configuration_that_is_being_edited_disables_no_command(pop: Pop) -> None:
    pop.backend("sa-1")
    serve(pop)
    file = pop.folder / "edgeproxy.toml"
    socket_path = pop.folder / "control"
    file.write_text(f"[proxy]\nregion = 'EU!'\ncontrol_socket = '{socket_path}'\nregoin = 1\n")
    broken = {
        "EDGEPROXY_CONFIG": str(file),
        "EDGEPROXY_CONTROL_SOCKET": "",
        "EDGEPROXY_DB_RELOAD_SECS": "abc",
    }
    told = run_edgeproxy("drain", "sa-1", folder=pop.folder, **broken)
    assert (told.returncode, told.stdout) == (0, "sa-1 is being drained\n")

    file.write_text("[proxy")
    told = run_edgeproxy("sessions", folder=pop.folder, **broken)
    assert told.returncode == 1
    assert "EDGEPROXY_CONTROL_SOCKET" in told.stderr
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
    assert tell(pop, "top", "--count", "-1").returncode == 2


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
