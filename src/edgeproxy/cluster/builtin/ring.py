"""The keys in force: those of the settings, read again when their file has changed.

Without keys, one is made of the cluster's name. It keeps clusters apart that meet by accident, and
nobody out.
"""

from __future__ import annotations

import hashlib

from edgeproxy.cluster.builtin.keys import KEY_BYTES, ClusterKey, KeyRing, key_ring, key_ring_file
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.errors import ConfigError
from edgeproxy.log import EventLog
from edgeproxy.store.sqlite.edit_watch import stamp_of
from edgeproxy.values import BadValueError

log = EventLog("cluster")


class Ring:
    """The keys in force.

    Attributes:
        keys: The keys.
        is_insecure: There is no key.
    """

    def __init__(self, settings: ReplicationSettings) -> None:
        """Raises ConfigError if the keys cannot be read."""
        self._settings = settings
        self.is_insecure = not settings.has_keys
        self._stamp: tuple[int, ...] | None = None
        self.keys = self._read()

    def refresh(self, *, is_asked: bool = False) -> bool:
        """Read the file again if it has changed; return whether the keys are others.

        Keys that cannot be read leave the last ones in force. Raises ConfigError if `is_asked`.
        """
        path = self._settings.key_file
        if path is None or (stamp_of(path) == self._stamp and not is_asked):
            return False
        before = self.shown()
        try:
            self.keys = self._read()
        except ConfigError as error:
            if is_asked:
                raise
            log.warning("cluster_keys_bad", reason=str(error))
            return False
        if self.shown() == before:
            return False
        log.info("cluster_keys_changed", keys=" ".join(self.shown()))
        return True

    def shown(self) -> list[str]:
        """Return the ids of the keys, the first one first; they tell nothing of the keys."""
        first = self.keys.primary.id
        return [f"{first.hex()} (used)", *(key.id.hex() for key in self.keys if key.id != first)]

    def _read(self) -> KeyRing:
        settings = self._settings
        if settings.key_file is not None:
            self._stamp = stamp_of(settings.key_file)
            return key_ring_file(settings.key_file)
        if not settings.keys:
            return KeyRing((_key_of(settings.cluster_name),))
        try:
            return key_ring(settings.keys)
        except BadValueError as error:
            raise ConfigError(f"EDGEPROXY_REPLICATION_KEYS: {error}") from None


def _key_of(cluster_name: str) -> ClusterKey:
    text = b"edgeproxy without a key\0" + cluster_name.encode()
    return ClusterKey(hashlib.blake2b(text, digest_size=KEY_BYTES).digest())
