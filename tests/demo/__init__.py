"""`edgeproxy demo`, part by part."""
