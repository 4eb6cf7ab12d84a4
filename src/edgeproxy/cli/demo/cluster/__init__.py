"""`edgeproxy demo --pops`: several POPs on one machine, and one routing table."""
