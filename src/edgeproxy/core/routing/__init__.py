"""In which order backends are offered to a client: tiers, scores, ranking.

A `RoutingTable` is immutable and published whole. It groups candidates by app, region and country
so that a choice costs the same among ten backends and ten thousand.
"""
