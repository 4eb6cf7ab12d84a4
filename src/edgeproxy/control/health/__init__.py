"""Health checks: one probe, by TCP, HTTP, gRPC or a command, and the loop that runs them."""
