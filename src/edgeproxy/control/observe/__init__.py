"""What a running proxy shows: status, metrics, the access log."""
