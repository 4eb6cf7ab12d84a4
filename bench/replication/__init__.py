"""Measures whole POPs that share a routing table, over a network of namespaces."""
