"""Access by token, by socket and by page.  tests/agent/test_security.py has the cases that need a real socket."""

import os
import socket
from pathlib import Path

import pytest

from chainbench_agent.errors import InputError
from chainbench_agent.settings import load_settings
from chainbench_agent.web.access import Access, access_for, check_secret, credentials, read_token
from chainbench_agent.web.app import create_app

ACTS, READS = b"acting-0123456789", b"reading-0123456789"
GETS = ("/status", "/metrics")


def bearer(token):
    return {"Authorization": f"Bearer {token.decode()}"}


@pytest.fixture
def guarded(runs):
    """A client of an agent with both tokens."""
    return create_app(runs, lambda _: (b"", "text/plain"), access=Access(ACTS, READS)).test_client()


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("token", [ACTS, READS])
def test_either_token_reads(guarded, path, token):
    assert guarded.get(path, headers=bearer(token)).status_code == 200


def test_one_token_acts(guarded, labels):
    """The read token is refused, and nothing starts."""
    refused = guarded.post("/start", json=labels, headers=bearer(READS))

    assert refused.status_code == 403
    assert refused.get_json(force=True)["remedy"] == "use the token of --token-file"
    assert guarded.get("/status", headers=bearer(READS)).json["status"] == "idle"
    assert guarded.post("/start", json=labels, headers=bearer(ACTS)).status_code == 200


def test_both_tokens_read_stored_runs_and_one_deletes(guarded):
    """503 is the answer of the store, which is off here: who gets it has been let in."""
    assert guarded.get("/runs", headers=bearer(READS)).status_code == 503
    assert guarded.delete("/runs/any", headers=bearer(READS)).status_code == 403
    assert guarded.delete("/runs/any", headers=bearer(ACTS)).status_code == 503


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {ACTS.decode()}"},
        {"Authorization": ACTS.decode()},
        bearer(ACTS[:-1]),
        bearer(ACTS + b"x"),
        {"Authorization": "Bearer ä"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [*(("GET", p) for p in GETS), ("POST", "/stop"), ("GET", "/nowhere")])
def test_no_token_or_a_wrong_one(guarded, headers, method, path):
    """401, which says how to send a token; also for unknown paths, so that the answer does not show which exist."""
    answer = guarded.open(path, method=method, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="chainbench-agent"'
    assert "Authorization: Bearer" in answer.get_json(force=True)["remedy"]


def test_without_a_token_for_reading_none_is_one(runs):
    """An empty token is no token."""
    client = create_app(runs, lambda _: (b"", ""), access=Access(ACTS)).test_client()

    assert client.get("/status", headers={"Authorization": "Bearer "}).status_code == 401


def test_tokens_are_compared_in_constant_time(guarded, monkeypatch):
    """Both are, with every call, by the function that is made for it."""
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda given, token: bool(compared.append(token)) or given == token)
    guarded.get("/status", headers=bearer(ACTS))

    assert compared == [ACTS, READS]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9090", "LOCALHOST", "a.localhost", "127.0.0.1:9090", "192.0.2.7", "[::1]:9090"]
)
def test_a_host_that_nobody_can_point_elsewhere(client, host):
    assert client.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"])
def test_a_host_that_is_not_ours(client, labels, host):
    """A page's own name, pointed at this machine: what the browser would send then is refused."""
    for answer in (
        client.get("/status", headers={"Host": host}),
        client.post("/start", json=labels, headers={"Host": host}),
    ):
        assert answer.status_code == 421
        assert "--allowed-hosts" in answer.get_json(force=True)["remedy"]
    assert client.get("/status").json["status"] == "idle"


def test_names_that_were_allowed(runs, monkeypatch):
    """And this machine's own, and the one that is listened on."""
    monkeypatch.setattr("socket.gethostname", lambda: "Box")
    access = access_for(load_settings(host="here.example", allowed_hosts="a.example, B.example"))
    client = create_app(runs, lambda _: (b"", ""), access=access).test_client()
    names = ("here.example", "a.example", "b.example:80", "box", "c.example")

    assert [client.get("/status", headers={"Host": n}).status_code for n in names] == [200, 200, 200, 200, 421]


def test_with_a_token_any_name_will_do(guarded):
    """A page cannot have it, wherever its name points."""
    assert guarded.get("/status", headers=bearer(READS) | {"Host": "box.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://evil.example"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/stop"), ("POST", "/start"), ("GET", "/metrics")])
def test_a_page_of_another_site(client, labels, headers, method, path):
    """Requests that a browser sends for such a page, with or without a body, are refused."""
    answer = client.open(path, method=method, headers=headers, json=labels if path == "/start" else None)

    assert answer.status_code == 403
    assert client.get("/status").json["status"] == "idle"


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_a_page_of_our_own(client, labels, headers):
    assert client.post("/start", json=labels, headers=headers).status_code == 200


def test_a_link_to_us_may_be_followed(client):
    """It looks, and its page gets nothing of the answer; a form of that page acts, and is refused."""
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}

    assert client.get("/status", headers=followed).status_code == 200
    assert client.post("/stop", headers=followed).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
@pytest.mark.parametrize("path", ["/start", "/stop", "/report"])
def test_every_body_is_json(client, labels, path, kind):
    """Content types that a form can send are refused."""
    client.post("/start", json=labels)

    assert client.post(path, data=b'{"a": 1}', content_type=kind).status_code == 415
    assert client.get("/status").json["status"] == "running"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "length", [{"CONTENT_LENGTH": "7"}, {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}]
)
def test_a_body_is_one_however_it_is_sent(client, method, length):
    """By whatever method, and also in chunks, which have no length."""
    answer = client.open("/runs/any", method=method, environ_overrides=length, content_type="text/plain")

    assert answer.status_code == 415


@pytest.mark.parametrize("path", GETS)
def test_no_page_is_let_read_an_answer(client, path):
    """A browser shows a page of another site what an answer allows it to: none does, asked before or not."""
    asked = {"Origin": "http://localhost", "Access-Control-Request-Method": "GET"}
    for answer in (client.get(path, headers=asked), client.get(path), client.options(path, headers=asked)):
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]


def secret(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_from_a_file(tmp_path):
    """Its group may read it: so do a unit's credentials and a pod's secrets come."""
    assert read_token("token_file", secret(tmp_path / "t", f" {ACTS.decode()}\n", 0o640)) == ACTS


@pytest.mark.parametrize("text", ["", "\n", "tooshrt", "a b" * 10, "ä" * 20, f"{ACTS.decode()}\n{READS.decode()}"])
def test_no_token_in_a_file(tmp_path, text):
    """The remedy is a command; what the file holds is not shown."""
    with pytest.raises(InputError, match=r"no token .* make one with: \(umask 077; openssl rand -hex 32") as error:
        read_token("token_file", secret(tmp_path / "t", text))

    assert not text.strip() or text not in str(error.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_secret_that_everybody_has(tmp_path, mode):
    path = secret(tmp_path / "t", ACTS.decode(), mode)

    with pytest.raises(InputError, match=f"chmod o-rw {path}"):
        read_token("token_file", path)


@pytest.mark.parametrize(("name", "says"), [("none", "No such file"), (".", "Is a directory")])
def test_a_secret_that_is_not_there(tmp_path, name, says):
    with pytest.raises(InputError, match=f"token_file: cannot read .*: {says}"):
        read_token("token_file", tmp_path / name)


def test_a_secret_that_is_no_file():
    with pytest.raises(InputError, match="/dev/null is not a file"):
        check_secret("tls_key", Path(os.devnull))


def test_settings_that_would_protect_nothing(tmp_path):
    one = secret(tmp_path / "one", ACTS.decode())

    with pytest.raises(InputError, match=r"^read_token_file: .*--token-file"):
        access_for(load_settings(read_token_file=str(one)))
    with pytest.raises(InputError, match="read_token_file: has the same token"):
        access_for(load_settings(token_file=str(one), read_token_file=str(one)))
    with pytest.raises(InputError, match="socket_group: there is no group nosuch"):
        access_for(load_settings(socket_group="nosuch"))


def test_credentials_are_the_kernels(tmp_path):
    """The process that connected, its user and all groups."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        with listener.accept()[0] as served:
            found = credentials(served)
    with socket.socket() as tcp:
        assert credentials(tcp) is None

    assert (found.pid, found.uid) == (os.getpid(), os.geteuid())
    assert found.groups == {os.getegid(), *os.getgroups()}
