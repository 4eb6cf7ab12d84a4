"""The API of Corrosion: one request, one transaction, on a connection that is kept.

A refusal or a server error means that nothing was done. If no answer comes, it is not known whether
anything was done, or will be.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from contextlib import suppress

from edgeproxy.cluster.corrosion.statements import FENCED, Statement
from edgeproxy.cluster.engine import EngineError
from edgeproxy.errors import reason_of

ANSWER_SECS = 10.0
"""How long a transaction may take. A thousand rows take a quarter of a second."""
PATH = "/v1/transactions"


class NoAnswerError(EngineError):
    """The transaction was sent, and it is not known whether it was done."""


class Link:
    """The connection to one Corrosion. For one thread."""

    def __init__(self, port: int, secret: str, answer_secs: float = ANSWER_SECS) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=answer_secs)
        self._headers = {
            "Authorization": f"Bearer {secret}",
            "Content-Type": "application/json",
        }

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def execute(self, statements: Sequence[Statement]) -> None:
        """Do all of this in one transaction. Raises EngineError if nothing was done."""
        body = json.dumps(statements).encode()
        try:
            if self._connection.sock is None:
                self._connection.connect()
        except OSError as error:
            raise EngineError(f"Corrosion cannot be reached: {reason_of(error)}") from None
        try:
            self._connection.request("POST", PATH, body, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NoAnswerError(f"Corrosion does not answer: {reason_of(error)}") from None
        if answer.status != http.client.OK:
            raise EngineError(_refusal(answer.status, text))


def _refusal(status: int, text: bytes) -> str:
    reason = text.decode("utf-8", "replace")[:500]
    with suppress(ValueError, KeyError, TypeError, IndexError):
        reason = json.loads(text)["results"][0]["error"]
    if FENCED in reason:
        return "another agent has committed to this Corrosion meanwhile"
    return f"Corrosion has refused an edit: {reason or 'status'} ({status})"
