"""Commands that ask a running proxy over its control socket."""
