"""One running proxy: `app` builds every part and runs it; nothing else knows all parts."""
