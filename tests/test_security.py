"""What protects a daemon that listens: addresses, certificates, sockets of the file system, and its log."""

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from daemon import LABELS, LONG_S

from chainbench_agent.errors import InputError
from chainbench_agent.server.listener import listen, tls_for

EVERYWHERE = "0.0.0.0"  # noqa: S104 - which is what these tests are about
TOKEN, READ_TOKEN = "acting-0123456789abcdef", "reading-0123456789abcdef"
ASK = """
import os, socket, sys
if len(sys.argv) > 4: os.setgroups([int(sys.argv[4])])
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]))
s = socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except OSError as error: sys.exit(error.strerror)
s.sendall(b"GET /status HTTP/1.1\\r\\nHost: any.example\\r\\n\\r\\n")
print(s.makefile().readline().split()[1])
"""
ANYTHING_GOES = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = policy
[policy]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""
BROKEN = """
    class Broken(FakeCollector):
        asked = 0
        def status(self):
            self.asked += 1
            if self.asked > 2:
                raise KeyError("oops\\n2026-01-01 00:00:00,000 INFO    run forged")
            return super().status()
    return Broken()
"""
"""Once it serves, each GET /status meets a bug."""
NOBODY = "65534"
HEALTHY = Path(__file__).parents[1] / "scripts/healthy.py"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become another user: run `make test` as root.")


@pytest.fixture
def tokens(tmp_path):
    files = {}
    for name, token in (("token_file", TOKEN), ("read_token_file", READ_TOKEN)):
        path = tmp_path / name
        path.write_text(f"{token}\n")
        path.chmod(0o600)
        files[name] = path
    return files


def unix_ask(path, call="GET /status", token=""):
    said = f"{call} HTTP/1.1\r\nHost: localhost\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(f"{said}\r\n".encode())
        return client.makefile().read()


@pytest.mark.parametrize("host", [EVERYWHERE, "::"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_other_machines_only_with_a_token_or_on_ones_word(daemon, certificate, host, encrypted):
    """The agent does not start, and says what it lacks; a certificate keeps nobody out."""
    cert, key = certificate
    agent = daemon(host=host, **({"tls_cert": cert, "tls_key": key} if encrypted else {}))

    assert agent.process.wait(LONG_S) == 1
    (line,) = agent.log.splitlines()
    assert line.startswith(f"host: {host} can be reached from other machines")
    assert "--token-file" in line
    assert "--insecure" in line


def test_on_ones_word(daemon):
    assert daemon(host=EVERYWHERE, insecure="true").url.startswith(f"http://{EVERYWHERE}:")


def test_with_a_token(daemon, tokens):
    """Called from another address than loopback, as another machine would."""
    agent = daemon(host=EVERYWHERE, **tokens)
    assert agent.url.startswith(f"http://{EVERYWHERE}")
    assert "WARNING tokens cross the network in the clear" in agent.log
    acting, reading = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, READ_TOKEN))

    assert requests.get(f"{agent.url}/metrics", timeout=LONG_S).status_code == 401
    assert requests.get(f"{agent.url}/metrics", headers=reading, timeout=LONG_S).status_code == 200
    assert requests.post(f"{agent.url}/start", headers=reading, json=LABELS, timeout=LONG_S).status_code == 403
    assert requests.post(f"{agent.url}/start", headers=acting, json=LABELS, timeout=LONG_S).status_code == 200


def test_what_a_proxy_would_say_is_ignored(daemon):
    """Neither who asks nor where the agent is called is taken from what any client may write."""
    agent = daemon()
    claims = {
        "Forwarded": "for=192.0.2.7;host=evil.example;proto=https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Ssl": "off",  # contradicts the line above: who believes them answers 400
        "SCRIPT_NAME": "/nowhere",
    }
    assert requests.get(f"{agent.url}/status", headers=claims, timeout=LONG_S).status_code == 200

    pointed = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
    assert requests.get(f"{agent.url}/status", headers=pointed, timeout=LONG_S).status_code == 421


def test_a_token_that_everybody_can_read(daemon, tokens):
    tokens["token_file"].chmod(0o644)
    agent = daemon(**tokens)

    assert agent.process.wait(LONG_S) == 1
    assert f"chmod o-rw {tokens['token_file']}" in agent.log
    assert TOKEN not in agent.log


def test_no_secret_in_the_log(daemon, tokens):
    """Whoever reads it at its most talkative: neither the agent's tokens nor what a client took for one.

    Also not of a request that is refused, is none, or meets a bug.
    """
    agent = daemon(BROKEN, log_level="debug", **tokens)
    guess = "guess-0123456789abcdef"
    for token in (TOKEN, READ_TOKEN, guess):
        for headers in ({"Authorization": f"Bearer {token}"}, {f"{token}": "x"}, {"Authorization": f"Bearer\t{token}"}):
            requests.get(f"{agent.url}/status", headers=headers, timeout=LONG_S)
    for raw in (f"GET / HTTP/1.1\r\nAuthorization: Bearer {guess}\0\r\n\r\n", f"GET / HTTP/9\r\nX: {guess}\r\n\r\n"):
        with socket.create_connection(agent.address) as client:
            client.sendall(raw.encode())
            client.makefile().read()
    assert agent.end() == 0

    assert "Booting worker" in agent.log
    assert "GET /status failed" in agent.log
    for secret in (TOKEN, READ_TOKEN, guess):
        assert secret not in agent.log


def test_no_entry_of_the_log_is_forged(daemon):
    """A path with a line break, in an entry about a bug that it met."""
    agent = daemon(BROKEN)
    forged = "2026-01-01 00:00:00,000 INFO    run forged"
    assert requests.get(f"{agent.url}/status?%0a{forged}", timeout=LONG_S).status_code == 500
    with socket.create_connection(agent.address) as client:
        client.sendall(f"GET /{forged}\x0b{forged} HTTP/1.1\r\n\r\n".encode())
        client.makefile().read()
    assert agent.end() == 0

    assert "run forged" in agent.log
    assert not [line for line in agent.log.splitlines() if line.startswith("2026-01-01")]


def test_tls(daemon, certificate):
    """With the certificate, HTTPS alone; a run from start to stop."""
    cert, key = certificate
    agent = daemon(tls_cert=cert, tls_key=key)
    assert agent.url.startswith("https://127.0.0.1:")
    start = requests.post(f"{agent.url}/start", json=LABELS, verify=str(cert), timeout=LONG_S)
    stop = requests.post(f"{agent.url}/stop", verify=str(cert), timeout=LONG_S)

    assert (start.status_code, stop.json()["exec"]) == (200, {"exec_count": 53})
    with pytest.raises(requests.ConnectionError):
        requests.get(agent.url.replace("https", "http"), timeout=LONG_S)


def test_tls_that_is_too_old(daemon, certificate, tmp_path, monkeypatch):
    """Refused by the agent itself, on a machine whose own policy would allow it; the client would speak it as well."""
    cert, key = certificate
    policy = tmp_path / "openssl.cnf"
    policy.write_text(ANYTHING_GOES)
    monkeypatch.setenv("OPENSSL_CONF", str(policy))
    agent = daemon(tls_cert=cert, tls_key=key)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1

    with socket.create_connection(agent.address) as plain, pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        old.wrap_socket(plain)


def test_tls_clients_that_say_nothing_hold_nobody_up(daemon, certificate):
    """Not even in the handshake."""
    cert, key = certificate
    agent = daemon(tls_cert=cert, tls_key=key)
    silent = [socket.create_connection(agent.address) for _ in range(37)]
    silent[0].sendall(b"\x16\x03\x01")

    assert requests.get(f"{agent.url}/status", verify=str(cert), timeout=5).ok
    for client in silent:
        client.close()


def test_certificates_that_cannot_be_used(tmp_path, certificate):
    cert, key = certificate
    broken = tmp_path / "broken"
    broken.write_text("no PEM")
    broken.chmod(0o600)
    shown = tmp_path / "shown"
    shown.write_bytes(key.read_bytes())
    shown.chmod(0o644)

    for pair, says in (
        ((cert, None), "tls_key: is missing"),
        ((None, key), "tls_cert: is missing"),
        ((cert, tmp_path / "none"), "cannot read .*none: No such file"),
        ((tmp_path / "none", key), "No such file"),
        ((cert, broken), "a certificate and its key"),
        ((broken, key), "a certificate and its key"),
        ((cert, shown), f"chmod o-rw {shown}"),
    ):
        with pytest.raises(InputError, match=says):
            tls_for(*pair)
    assert tls_for(None, None) is None


@pytest.fixture
def guarded_socket(daemon, tmp_path, tokens):
    path = tmp_path / "agent.sock"
    assert daemon(host=f"unix:{path}", **tokens).url
    return path


def test_a_unix_socket(daemon, tmp_path):
    """For its user alone; no network, no token; gone when the agent is."""
    path = tmp_path / "agent.sock"
    agent = daemon(host=f"unix:{path}")

    assert agent.url == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert unix_ask(path).startswith("HTTP/1.1 200 OK")
    assert agent.end() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("call", "token", "status"),
    [
        ("GET /status", "", 401),
        ("POST /stop", "", 401),
        ("POST /stop", "guess-0123456789abcdef", 401),
        ("POST /stop", READ_TOKEN, 403),
        ("GET /status", READ_TOKEN, 200),
        ("GET /status", TOKEN, 200),
        ("POST /stop", TOKEN, 409),  # let in: no run is active
    ],
)
def test_a_unix_socket_with_tokens(guarded_socket, call, token, status):
    """Who may connect, as this user may, still needs the token: the socket is one more door, not a way round."""
    assert unix_ask(guarded_socket, call, token).startswith(f"HTTP/1.1 {status} ")


def ask_as(path, *ids):
    done = subprocess.run([sys.executable, "-c", ASK, path, *ids], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


@as_root
def test_who_may_use_a_unix_socket(daemon, tmp_path):
    """The group that was named, also as one of several; nobody else, even where the file would let them."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    path = tmp_path / "agent.sock"
    agent = daemon(host=f"unix:{path}", socket_group=4)
    assert agent.url

    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert ask_as(path, "4", NOBODY) == "200"
    assert ask_as(path, NOBODY, NOBODY, "4") == "200"
    assert ask_as(path, NOBODY, NOBODY, "5") == "Permission denied"
    path.chmod(0o666)
    assert ask_as(path, NOBODY, NOBODY, "5") == "403"


@pytest.fixture
def no_chown(monkeypatch):
    """As for a service, whose filter of system calls has none of those that change owners."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)


@pytest.mark.usefixtures("no_chown")
def test_who_runs_with_the_group_gives_nothing_away(tmp_path):
    path = tmp_path / "s"
    with listen(f"unix:{path}", 0, group=os.getegid()):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, os.getegid())


@pytest.mark.usefixtures("no_chown")
def test_who_does_not_is_told_what_would_help(tmp_path):
    """And leaves no socket that others would find in use."""
    path = tmp_path / "s"
    with pytest.raises(InputError, match=r"socket_group: the agent may not give .*Group="):
        listen(f"unix:{path}", 0, group=os.getegid() + 1)
    assert not path.exists()


def test_what_a_dead_agent_left(tmp_path):
    """Its socket is replaced; one that somebody listens on, or any other file, is not."""
    path = tmp_path / "s"
    listen(f"unix:{path}", 0).close()
    assert path.is_socket()

    with listen(f"unix:{path}", 0), pytest.raises(InputError, match=r"host: cannot listen on .*in use; choose"):
        listen(f"unix:{path}", 0)
    path.unlink()
    path.write_text("precious")
    with pytest.raises(InputError, match="in use"):
        listen(f"unix:{path}", 0)
    assert path.read_text() == "precious"


def test_the_pid_of_who_asks_by_a_unix_socket(daemon, tmp_path):
    """The process that connected is the caller: what it calls a pid is looked for in its namespace."""
    path = tmp_path / "agent.sock"
    agent = daemon(
        """
    class Caller(FakeCollector):
        def start(self, request, run_id=""):
            super().start(request, run_id)
            self.sections = {"exec": {"caller": request.caller}}
    return Caller()
""",
        host=f"unix:{path}",
    )
    assert agent.url
    body = b'{"scenario":"s","impl":"i","variant":"v","commit":"c","dataset":"d","pid":%d}' % os.getpid()
    head = "HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length"
    for call in (f"POST /start {head}: {len(body)}\r\n\r\n".encode() + body, f"POST /stop {head}: 0\r\n\r\n".encode()):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(call)
            evidence = client.makefile().read().partition("\n\n")[2]

    assert json.loads(evidence)["exec"]["caller"] == os.getpid()


def healthy(agent, **settings):
    """The exit code of the container's health check, in the environment that the agent has."""
    environment = os.environ | {f"CHAINBENCH_{name.upper()}": str(value) for name, value in settings.items()}
    if not agent.url.startswith("unix:"):
        environment |= {"CHAINBENCH_PORT": str(agent.address[1])}
    return subprocess.run([sys.executable, "-P", HEALTHY], env=environment, capture_output=True, check=False).returncode


def test_the_health_check_knows_the_token_and_the_scheme(daemon, tokens, certificate):
    """It passes while the agent answers, and fails when it does not know the token or nobody is there."""
    cert, key = certificate
    settings = {**tokens, "tls_cert": cert, "tls_key": key}
    agent = daemon(**settings)
    agent.until(lambda: "serving on" in agent.log)

    assert healthy(agent, **settings) == 0
    assert healthy(agent, host="127.0.0.1", tls_cert=cert) == 1
    agent.end()
    assert healthy(agent, **settings) == 1


@pytest.mark.parametrize("host", ["unix:{}", "127.0.0.2", EVERYWHERE])
def test_the_health_check_asks_where_the_agent_listens(daemon, tmp_path, host):
    """Not on 127.0.0.1 whatever the setting: a container with another would never be healthy."""
    settings = {"host": host.format(tmp_path / "agent.sock"), "insecure": "true"}
    agent = daemon(**settings)
    assert agent.url

    assert healthy(agent, **settings) == 0
    assert healthy(agent, host=f"unix:{tmp_path}/none") == 1
    assert healthy(agent, host="127.0.0.3") == int(host != EVERYWHERE)
