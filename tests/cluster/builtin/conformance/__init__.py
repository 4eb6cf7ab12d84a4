"""What every store of a node's state does."""
