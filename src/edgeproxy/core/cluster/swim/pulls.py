"""Asking others for the list of members: bootstrap addresses, and one member now and then.

A bootstrap address is asked for ever while nobody behind it is up, less and less often. One that
turns out to be this node's own is asked very rarely: it may come to lead elsewhere. A list comes in
pages; a page that does not come is asked for again, a few times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.core.cluster.swim.rng import Rng
from edgeproxy.core.cluster.swim.tuning import JOIN_FIRST, JOIN_MOST, PULL_TRIES


class Contact:
    """A bootstrap address.

    Attributes:
        node_id: Who answered there last; "" if nobody has.
    """

    __slots__ = ("address", "ask_at", "node_id", "pause_periods", "seq")

    def __init__(self, address: Address, now: float) -> None:
        self.address = address
        self.ask_at = now
        self.pause_periods: float = JOIN_FIRST
        self.seq = -1
        self.node_id = ""


class Contacts:
    """All bootstrap addresses."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._contacts: dict[Address, Contact] = {}

    def replace(self, addresses: Iterable[Address], now: float) -> None:
        """Take the addresses that the names lead to now; those known before keep their pauses."""
        self._contacts = {
            address: self._contacts.get(address) or Contact(address, now) for address in addresses
        }

    def due(
        self, now: float, period_secs: float, is_up: Callable[[Contact], bool]
    ) -> list[Contact]:
        """Return whom to ask now. `is_up`: whether somebody behind the address is up."""
        found = []
        for contact in self._contacts.values():
            if now < contact.ask_at:
                continue
            if is_up(contact):
                contact.pause_periods = JOIN_FIRST
                contact.ask_at = now + period_secs
                continue
            jitter = self._rng.uniform(0.5, 1.0)
            contact.ask_at = now + contact.pause_periods * jitter * period_secs
            contact.pause_periods = min(2 * contact.pause_periods, JOIN_MOST)
            found.append(contact)
        return found

    def asked_as(self, seq: int) -> Contact | None:
        """Return the address that was last asked with this seq."""
        return next((each for each in self._contacts.values() if each.seq == seq), None)


class PagePull:
    """A page of the list of one member, which is asked for.

    Attributes:
        seq: Names the last request.
        after: Where the page begins.
        ask_at: When to ask for it again.
    """

    __slots__ = ("_tries", "address", "after", "ask_at", "node_id", "seq")

    def __init__(self, address: Address, node_id: str, now: float, after: str = "") -> None:
        self.address = address
        self.node_id = node_id
        self.seq = -1
        self.after = after
        self.ask_at = now
        self._tries = PULL_TRIES

    def asked(self, seq: int, now: float, period_secs: float) -> None:
        """The page was asked for."""
        self.seq = seq
        self.ask_at = now + period_secs
        self._tries -= 1

    def is_given_up(self, now: float) -> bool:
        """Whether the page did not come, however often it was asked for."""
        return self._tries == 0 and now >= self.ask_at
