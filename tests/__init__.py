"""The tests. Their folders mirror `src/edgeproxy`."""
