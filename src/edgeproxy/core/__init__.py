"""Pure decisions: no sockets, clocks, randomness, files or logging in here."""
