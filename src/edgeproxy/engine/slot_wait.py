"""How long a client waits for a slot that an ending connection is about to free.

A client may be back before the engine knows that its last connection is over: the end is still in
the kernel's queue, on its way from a byte thread, or waits for the backend to close its side. Where
the gate knows of no free slot it answers `Wait`, and the client is decided again:

* when a session has ended, at most one client for each, first come, first served;
* for the last time when everything that came before the client has been read, and no connection
  has begun to end within `ENDING_SECS`; or when it has waited for `LONGEST_SECS`.

So at a limit that is full of open connections a client is refused within a turn. The others are
decided meanwhile. At most `MAX_WAITING` wait; the next ones are decided at once. A slot is never
given out before the gate has heard that it is free.
"""

from __future__ import annotations

ENDING_SECS = 1.0
"""How long ago one side of a connection may have ended whose other side is about to follow."""
LONGEST_SECS = 1.0
MAX_WAITING = 256
