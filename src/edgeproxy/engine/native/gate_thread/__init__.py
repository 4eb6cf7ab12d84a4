"""What the gate thread of the native engine does: accept, preread, dial, and ask the gate."""
