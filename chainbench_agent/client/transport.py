"""One HTTP call and its answer: which calls are repeated, and which error each failure becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from chainbench_agent.client.errors import BadAnswerError, NoAnswerError, ProblemError, UnreachableError
from chainbench_agent.client.unix_socket import HOST, UnixSocketAdapter

Json = dict[str, Any]

PAUSES_S = (0.1, 0.5)
"""Before a GET is sent again."""

LONGEST_QUOTED = 80
_UNIX = "unix:"
_PROBLEM = "application/problem+json"


class Transport:
    """Calls one agent.  A GET whose connection breaks is sent again, because it changes nothing; no other call is.

    A GET that timed out is not repeated either: the caller has chosen how long to wait.
    """

    def __init__(self, url: str, token: str | None, timeout_s: float, ca: str | Path | None) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy or a .netrc of this user is not meant for the agent
        # POST is not repeated, so it must never meet an idle connection that the agent is about to close.
        self._session.headers["Connection"] = "close"
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token.strip()}"
        if ca is not None:
            self._session.verify = str(ca)
        if url.startswith(_UNIX):
            self._base = f"http://{HOST}"
            self._session.mount("http://", UnixSocketAdapter(_socket_path(url)))
        else:
            self._base = _checked(url).rstrip("/")

    def get(self, path: str, query: Mapping[str, str] | None = None) -> requests.Response:
        for pause_s in PAUSES_S:
            try:
                return self.send("GET", path, query=query)
            except NoAnswerError as error:
                if isinstance(_innermost(error), TimeoutError):
                    raise
            time.sleep(pause_s)
        return self.send("GET", path, query=query)

    def get_json(self, path: str, has: str, query: Mapping[str, str] | None = None) -> Json:
        """The JSON object that a GET answers.  `has`: a key that every agent puts into this one."""
        return self._json(f"GET {path}", self.get(path, query), has)

    def post_json(self, path: str, has: str, body: Mapping[str, Any] | None = None) -> Json:
        return self._json(f"POST {path}", self.send("POST", path, body=body), has)

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> requests.Response:
        """The answer to one call, which is good: a refusal is raised."""
        call = f"{method} {path}"
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = None if body is None else {"Content-Type": "application/json"}
        try:
            answer = self._session.request(
                method,
                self._base + path,
                params=query,
                data=data,
                headers=headers,
                timeout=self.timeout_s,
                allow_redirects=False,  # it would carry the token elsewhere
            )
        except OSError as error:  # RequestException is one; so is a `ca` that cannot be read
            raise self._failure(call, error) from error
        if answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise self._refusal(call, answer)
        return answer

    def _failure(self, call: str, error: OSError) -> UnreachableError | NoAnswerError:
        reason = _innermost(error)
        sentence = getattr(reason, "strerror", None) or str(reason)
        unsent = (NewConnectionError, ConnectTimeoutError, SSLCertVerificationError)  # other TLS errors can come later
        if not isinstance(error, requests.RequestException) or any(isinstance(each, unsent) for each in _chain(error)):
            return UnreachableError(f"{call}: cannot connect to {self.url}: {sentence}")
        if isinstance(reason, TimeoutError):
            return NoAnswerError(f"{call}: {self.url} did not answer within {self.timeout_s:g} s")
        return NoAnswerError(f"{call}: the connection to {self.url} broke: {sentence}")

    def _refusal(self, call: str, answer: requests.Response) -> ProblemError | BadAnswerError:
        if _media_type(answer) == _PROBLEM:
            return ProblemError(call, answer.status_code, self._json(call, answer, "title"))
        return self._bad(call, answer, "without a problem document")

    def _json(self, call: str, answer: requests.Response, has: str) -> Json:
        try:
            document = answer.json()
        except requests.JSONDecodeError:
            raise self._bad(call, answer, "without JSON") from None
        if not isinstance(document, dict):
            raise self._bad(call, answer, "without a JSON object")
        if has not in document:
            raise self._bad(call, answer, f"without {has!r}")
        return document

    def _bad(self, call: str, answer: requests.Response, lack: str) -> BadAnswerError:
        quoted = answer.text[:LONGEST_QUOTED].strip()
        said = f"{call}: {self.url} answered {answer.status_code} {lack}: {quoted!r}"
        return BadAnswerError(f"{said}; is this the URL of an agent?")


def _socket_path(url: str) -> str:
    """The path in unix:/path, as the agent's settings have it, or in unix:///path."""
    path = url.removeprefix(_UNIX)
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{url!r} is not unix: and the absolute path of a socket")
    return path


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not the URL of an agent: http://host:port, https://host:port or unix:/path")
    return url


def _media_type(answer: requests.Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what caused it, the innermost last."""
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _innermost(error: BaseException) -> BaseException:
    """The system's own error: what requests and urllib3 put around it is of no use to people."""
    return _chain(error)[-1]
