"""One run of a client, from the answer of /start to its evidence: also where it ends by itself, or the agent dies."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chainbench_agent.client.errors import ClientError, NoAnswerError, ProblemError, RunLostError
from chainbench_agent.client.transport import Json

if TYPE_CHECKING:
    from chainbench_agent.client.agent import Agent

POLL_S = 0.1
"""Between two looks at a run that is stopping."""


class Run:
    """A run that `Agent.collect` began.  `started`: the agent's answer to /start."""

    def __init__(self, agent: Agent, started: Json) -> None:
        self.started = started
        self.id: str = started["run_id"]
        self._agent = agent
        self._evidence: Json | None = None

    @property
    def evidence(self) -> dict[str, Any]:
        """The evidence, once the run has ended; RunLostError where there is none."""
        if self._evidence is None:
            raise RunLostError(self.id, "its evidence is read at the end of the with statement, and not before")
        return self._evidence

    def end(self) -> None:
        """Stop the run and read its evidence.  RunLostError if there is none, or only a part."""
        try:
            self._evidence = self._stop()
        except RunLostError as error:
            self._evidence = error.evidence
            raise
        except ClientError as error:
            remedy = f"once the agent answers, run({self.id!r}) returns what it stored of this one"
            raise RunLostError(self.id, f"its evidence could not be read: {error}; {remedy}") from error

    def _stop(self) -> Json:
        """The answer of /stop, or the evidence of a run that has ended without it.

        /stop ends whichever run is on, and another client's must go on: so /status is read first.
        """
        if self._agent.status()["run_id"] != self.id:
            return self._recall("the agent has no evidence of it; was it restarted?")
        try:
            evidence = self._agent.stop()
        except (NoAnswerError, ProblemError) as error:
            self._wait_while_stopping(error)
            return self._recall(str(error))
        if evidence["run"]["id"] != self.id:
            return self._recall("it ended by itself, and /stop ended another run that had just begun")
        return evidence

    def _wait_while_stopping(self, failure: ClientError) -> None:
        """Wait, as long as for one answer, for a run that ends by itself or by a /stop whose answer was lost."""
        deadline = time.monotonic() + self._agent.timeout
        while (status := self._agent.status())["run_id"] == self.id:
            if status["status"] != "stopping" or time.monotonic() > deadline:
                raise failure
            time.sleep(POLL_S)

    def _recall(self, why_none: str) -> Json:
        """The evidence of a run that has ended, from the store or, where none is used, from /report."""
        stored: Json = {"result": None}
        with suppress(ProblemError):  # 404: it is not stored; 503: the store fails, or there is none
            stored = self._agent.run(self.id)
        if stored["result"] == "finished":
            return dict(stored["evidence"])
        if stored["result"] in {"failed", "interrupted"}:
            why = f"it was {stored['result']}: {stored['failure'] or stored['ended_by']}"
            raise RunLostError(self.id, why, stored["evidence"])
        latest = self._agent.latest()
        if latest is None or latest["run"]["id"] != self.id:
            raise RunLostError(self.id, why_none)
        return latest
