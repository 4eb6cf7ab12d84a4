"""Commands that read or edit a routing database; no proxy has to run."""
