"""`edgeproxy demo`: the main job, shown on real processes and real connections of this machine."""
