"""Who the members of the cluster are, and who of them is up: SWIM with Lifeguard, purely.

Messages, time and randomness go in; messages and events come out. Membership never decides about
data: what a dead member wrote stays valid, and a live one has no say by being alive.
"""
