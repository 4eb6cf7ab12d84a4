"""Control rate, that of seconds: geo files, probes, metrics, the control socket."""
