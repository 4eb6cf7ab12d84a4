"""Sessions between POPs: frames that arrive once and in order, from a POP that has a key.

`transport` is all that others use. It keeps one `session` with each POP, over `quic`; `auth` proves
both ends to each other, `dials` says when to dial, `refusals` counts who was not let in.
"""
