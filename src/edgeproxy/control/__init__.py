"""Control rate: what changes in seconds: geo files, probes, metrics, the control socket."""
