"""Proxies with several listeners: where each of them is, and their configuration as a file."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from tests.system.pop import Pop
from tests.system.proxy import RunningProxy

Address = tuple[str, int]


def where(proxy: RunningProxy, mode: str) -> Address:
    """Return the address of the listener that was opened last in this mode; not of the first."""
    proxy.wait_for("listener_opened", mode=mode)
    told = [each["listen"] for each in proxy.seen("listener_opened", mode=mode)]
    host, _, port = [each for each in told if not each.startswith("unix:")][-1].rpartition(":")
    return host.strip("[]"), int(port)


def section(name: str, **values: Any) -> str:
    """Return a section of the configuration file, of lists of text and of plain text."""
    lines = (
        f"{key} = {value if isinstance(value, list | int | float) else repr(str(value))}"
        for key, value in values.items()
    )
    return "\n".join((f"[{name}]", *lines, ""))


class Configured:
    """A proxy that has its listeners from a file, which `change` rewrites."""

    def __init__(self, pop: Pop, *listeners: str, more: str = "", **variables: str) -> None:
        self.path: Path = pop.folder / "edgeproxy.toml"
        self.path.write_text(section("listeners", listen=list(listeners)) + more)
        self.proxy = pop.serve(EDGEPROXY_CONFIG=str(self.path), **variables)

    def change(self, *listeners: str, more: str = "", **values: Any) -> None:
        """Say something else, and wait until that is in force."""
        text = section("listeners", listen=list(listeners), **values) + more
        reloaded = len(self.proxy.seen("config_reloaded"))
        self.path.write_text(text)
        self.proxy.send(signal.SIGHUP)
        self.proxy.wait_for("config_reloaded", reloaded + 1)
