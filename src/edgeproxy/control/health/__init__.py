"""Health checks: a probe by TCP, HTTP, gRPC or a command, and the loop that runs the probes."""
