"""QUIC by aioquic, and the only place that imports it: UDP sockets, connections, one stream each.

aioquic does no I/O here: `endpoint` owns the socket and drives its connections. Only public names
of aioquic are used. What it lacks is made up for here and in `cluster.sessions.session`: it has no
keep-alive, accepts any number of strangers, buffers without bounds, and raises its receive windows
whether anybody reads or not.
"""
