"""Every way a call can fail, as a tree; each message names the call and says what is wrong.

ClientError
├── UnreachableError   no connection: the call has not been sent, so nothing has happened
├── NoAnswerError      the call was sent, and no whole answer came in time: it may have been carried out
├── BadAnswerError     the answer is not one of the agent's
├── ProblemError       the agent refused the call, and says why
└── RunLostError       a run ended without its whole evidence
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """The root; `str()` is a sentence for people."""


class UnreachableError(ClientError):
    """There is no connection to the agent: it is not running, or the URL, the network or the certificate is wrong."""


class NoAnswerError(ClientError):
    """The agent took longer than the timeout, or the connection broke before the whole answer had come."""


class BadAnswerError(ClientError):
    """The answer is not an agent's, or is one that this client does not understand."""


class ProblemError(ClientError):
    """A problem document (RFC 9457): why the agent refused a call, and what to do.

    `errors`: each field of the request that is wrong, as {"field", "message", "remedy"}.
    `field`: the first of them, or empty.
    """

    def __init__(self, call: str, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.title: str = document["title"]
        self.detail: str = document.get("detail") or self.title
        self.errors: Sequence[Mapping[str, str]] = document.get("errors", ())
        first: Mapping[str, str] = self.errors[0] if self.errors else {}
        self.field: str = first.get("field", "")
        self.remedy: str = document.get("remedy") or first.get("remedy", "")
        super().__init__(f"{call}: {status} {self.detail}" + (f"; {self.remedy}" if self.remedy else ""))


class RunLostError(ClientError):
    """The whole evidence of a run is not available.

    `evidence`: what the agent stored before the run was interrupted, or None.
    """

    def __init__(self, run_id: str, sentence: str, evidence: dict[str, Any] | None = None) -> None:
        super().__init__(f"run {run_id}: {sentence}")
        self.run_id = run_id
        self.evidence = evidence
