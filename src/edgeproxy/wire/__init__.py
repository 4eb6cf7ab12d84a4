"""Pure codecs between bytes and values: no sockets, clocks, randomness, files or logging in here.

A decoder is given all bytes that have come so far and gives back a value, None while more bytes
are needed, or raises `WireError` at the first byte that cannot be right. It keeps nothing between
two calls. With more bytes a value stays the same value and an error the same error. The message
of an error is one of a fixed set of texts: it never holds anything that a peer has sent.
"""
