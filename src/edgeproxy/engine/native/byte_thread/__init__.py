"""What the byte threads of the native engine do: handshakes and relaying, never holding the GIL.

`handoff` is the way in and out of a byte thread; `loop` is its event loop.
"""
