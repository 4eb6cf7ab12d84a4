"""How an operator asks a running proxy: the control socket and the HTTP pages it is made of."""
