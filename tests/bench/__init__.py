"""The measurements are taken right; what they come to is nobody's promise."""
