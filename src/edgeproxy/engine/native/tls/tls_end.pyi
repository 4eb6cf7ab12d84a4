HAS_TLS: bool
