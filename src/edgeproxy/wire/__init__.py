"""Pure codecs between bytes and values: no sockets, clocks, randomness, files or logging.

A decoder takes all bytes received so far. It returns a value, returns None while it needs more
bytes, or raises `WireError` at the first byte that cannot be right. It keeps no state between
calls. More bytes never change a value or an error. Error messages are a fixed set of texts: none
contains bytes that a peer has sent.
"""
