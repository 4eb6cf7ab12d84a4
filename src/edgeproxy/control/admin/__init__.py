"""How an operator controls a running proxy: the control socket, and the HTTP server behind it."""
