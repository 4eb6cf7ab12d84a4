"""HTTP/1.1 for the API: accepts connections, reads requests, writes answers.

`server` accepts, `connection_limits` says who finds room, `connection` reads and writes,
`message` is what passes to and from `api/guard.py`. What a stranger can cost is decided here.
"""
