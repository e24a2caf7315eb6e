"""Failures between client and agent: each has its own error, and only a GET is sent again."""

import json
import socket

import pytest
from daemon import LABELS

from chainbench_agent.client import Agent, BadAnswerError, NoAnswerError, ProblemError, UnreachableError

IDLE = '{"run_id": null, "status": "idle"}'
TOKEN, READ_TOKEN, WRONG_TOKEN = "x" * 20, "y" * 20, "z" * 20
BUSY = json.dumps(
    {"title": "Service Unavailable", "status": 503, "detail": "no descriptor left", "remedy": "try again"}
)


def test_nothing_listens():
    """Nothing has been sent then, so a POST says the same."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agent = Agent(f"http://127.0.0.1:{port}")
    sentence = f"cannot connect to http://127.0.0.1:{port}: Connection refused"

    with pytest.raises(UnreachableError, match=f"GET /status: {sentence}"):
        agent.status()
    with pytest.raises(UnreachableError, match=f"POST /stop: {sentence}"):
        agent.stop()


def test_no_such_host():
    with pytest.raises(UnreachableError, match=r"cannot connect to http://nowhere\.invalid:9090: "):
        Agent("http://nowhere.invalid:9090").status()


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"]
)
def test_an_agent_that_is_slow(scripted, held, begun):
    """The timeout is that of the caller: a GET is not sent again after it, wherever the answer stopped."""
    server, agent = scripted(held(begun), timeout=0.1)

    with pytest.raises(NoAnswerError, match=rf"GET /status: {server.url} did not answer within 0\.1 s"):
        agent.status()
    assert server.calls == ["GET /status"]


def test_a_get_is_sent_again(scripted, answer):
    """After an answer that is cut off, and after a connection that is closed without one."""
    server, agent = scripted(answer(IDLE, length=500), b"", answer(IDLE))
    assert agent.status() == json.loads(IDLE)
    assert server.calls == ["GET /status"] * 3


def test_a_refusal_is_not_asked_for_again(scripted, answer):
    """The answer, which says what to do, is raised at once."""
    server, agent = scripted(answer(BUSY, "503 Service Unavailable", "application/problem+json"))

    with pytest.raises(ProblemError, match="GET /status: 503 no descriptor left; try again"):
        agent.status()
    assert server.calls == ["GET /status"]


def test_a_get_is_sent_three_times_at_most(scripted):
    server, agent = scripted(b"", b"", b"", b"")

    with pytest.raises(NoAnswerError, match=rf"GET /status: the connection to {server.url} broke: "):
        agent.status()
    assert server.calls == ["GET /status"] * 3


@pytest.mark.parametrize(
    ("method", "call"),
    [("start", "POST /start"), ("stop", "POST /stop"), ("report", "POST /report"), ("delete", "DELETE /runs/r")],
)
@pytest.mark.parametrize("broken", ["cut off", "closed", "busy"])
def test_what_acts_is_never_sent_again(scripted, answer, method, call, broken):
    """It may have been carried out, and a second run or stop would be another's."""
    first = {
        "cut off": answer('{"status": "started"}', length=500),
        "closed": b"",
        "busy": answer(BUSY, "503 Service Unavailable", "application/problem+json"),
    }[broken]
    server, agent = scripted(first, answer(IDLE))

    with pytest.raises((NoAnswerError, ProblemError), match=call):
        getattr(agent, method)(*(["r"] if method == "delete" else ()))
    assert server.calls == [call]


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (("<h1>It works!</h1>", "text/html", "200 OK"), "answered 200 without JSON: '<h1>It works!</h1>'"),
        (("[1, 2]", "application/json", "200 OK"), r"answered 200 without a JSON object: '\[1, 2\]'"),
        (('{"up": true}', "application/json", "200 OK"), "answered 200 without 'run_id'"),
        (("<h1>Bad Gateway</h1>", "text/html", "502 Bad Gateway"), "answered 502 without a problem document"),
        (('{"error": 1}', "application/problem+json", "500 Oops"), "answered 500 without 'title'"),
        (("moved", "text/plain", "302 Found"), "answered 302 without a problem document"),
    ],
)
def test_what_answers_is_no_agent(scripted, answer, sent, sentence):
    body, media_type, status = sent
    _, agent = scripted(answer(body, status, media_type))

    with pytest.raises(BadAnswerError, match=f"GET /status: {agent.url} {sentence}.*; is this the URL of an agent"):
        agent.status()


def test_a_token(daemon, tmp_path):
    """A token may end with a line end, as a file does; without a token, or with another, 401 says what is missing."""
    for name, token in (("token_file", TOKEN), ("read_token_file", READ_TOKEN)):
        (tmp_path / name).write_text(f"{token}\n")
        (tmp_path / name).chmod(0o600)
    url = daemon(token_file=tmp_path / "token_file", read_token_file=tmp_path / "read_token_file").url

    assert Agent(url, token=(tmp_path / "token_file").read_text()).start(**LABELS)["status"] == "started"
    assert Agent(url, token=READ_TOKEN).status()["running"] is True
    for agent, status, remedy in (
        (Agent(url), 401, "Authorization: Bearer"),
        (Agent(url, token=WRONG_TOKEN), 401, "--token-file"),
        (Agent(url, token=READ_TOKEN), 403, "--token-file"),
    ):
        with pytest.raises(ProblemError) as caught:
            agent.stop()
        assert (caught.value.status, caught.value.field) == (status, "")
        assert remedy in caught.value.remedy
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("spelling", ["unix:{}", "unix://{}"])
def test_a_unix_socket(daemon, tmp_path, spelling):
    """As the agent's own --host has it, and as a URL."""
    path = tmp_path / "socket"
    assert daemon(host=f"unix:{path}").url

    agent = Agent(spelling.format(path))

    assert agent.start(**LABELS)["status"] == "started"
    assert agent.stop()["run"]["scenario"] == LABELS["scenario"]


def test_no_unix_socket(tmp_path):
    with pytest.raises(UnreachableError, match=f"cannot connect to unix:{tmp_path}/none: No such file or directory"):
        Agent(f"unix:{tmp_path}/none").status()


def test_a_unix_socket_that_is_slow(tmp_path):
    """The timeout is that of every other connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()

        with pytest.raises(NoAnswerError, match=r"did not answer within 0\.05 s"):
            Agent(f"unix:{tmp_path}/socket", timeout=0.05).status()


def test_tls(daemon, certificate, tmp_path):
    """The certificate is checked, against `ca` where it is given."""
    cert, key = certificate
    url = daemon(tls_cert=cert, tls_key=key).url

    assert Agent(url, ca=cert).status()["running"] is False
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        Agent(url).status()
    with pytest.raises(UnreachableError, match="none"):
        Agent(url, ca=tmp_path / "none").status()
    with pytest.raises(NoAnswerError):
        Agent(url.replace("https", "http")).status()


def test_settings_of_this_user_are_not_for_the_agent(daemon, monkeypatch, tmp_path):
    """Neither a proxy nor the password of a .netrc file."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("default login me password secret\n")
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    agent = daemon(token_file=tmp_path / "token")

    assert Agent(agent.url, token=TOKEN).status()["running"] is False


@pytest.mark.parametrize("url", ["localhost:9090", "ftp://host", "http://", "unix:socket", "unix://host/socket", ""])
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match=f"^'{url}' is not "):
        Agent(url)
