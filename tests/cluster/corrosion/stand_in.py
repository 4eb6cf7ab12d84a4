#!/usr/bin/env python3
"""Stands in for Corrosion where only its life matters: it starts, logs, and ends as it is told.

`STAND_IN` in its environment says how: `ends` at once, `deaf` to SIGTERM, or empty.
"""

import os
import signal
import sys

HOW = os.environ.get("STAND_IN", "")


def say(level: str, message: str) -> None:
    line = f'{{"level": "{level}", "fields": {{"message": "{message}"}}, "target": "stand_in"}}\n'
    sys.stdout.write(line)
    sys.stdout.flush()


def end(*_: object) -> None:
    say("INFO", "leaving")
    sys.exit(0)


signal.signal(signal.SIGTERM, signal.SIG_IGN if HOW == "deaf" else end)
say("WARN", " ".join(sys.argv[1:]))
if HOW == "ends":
    sys.exit(3)
with open(os.path.join(os.path.dirname(sys.argv[2]), "started"), "a") as file:
    file.write(f"{os.getpid()}\n")
while True:
    signal.pause()
