"""The protection of a listening agent: addresses, tokens, certificates, unix sockets, and its log."""

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
HEALTHY = Path(__file__).parents[2] / "scripts/healthy.py"
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
def test_an_address_for_other_machines_requires_a_token_or_insecure(daemon, certificate, host, encrypted):
    """Otherwise the agent does not start, and says what is missing.  A certificate stops no client."""
    cert, key = certificate
    agent = daemon(host=host, **({"tls_cert": cert, "tls_key": key} if encrypted else {}))

    assert agent.process.wait(LONG_S) == 1
    (line,) = agent.log.splitlines()
    assert line.startswith(f"host: {host} can be reached from other machines")
    assert "--token-file" in line
    assert "--insecure" in line


def test_insecure_allows_an_address_for_other_machines(daemon):
    assert daemon(host=EVERYWHERE, insecure="true").url.startswith(f"http://{EVERYWHERE}:")


def test_tokens_are_required_from_other_addresses(daemon, tokens):
    """The call comes from an address other than loopback, as from another machine."""
    agent = daemon(host=EVERYWHERE, **tokens)
    assert agent.url.startswith(f"http://{EVERYWHERE}")
    assert "WARNING tokens cross the network in the clear" in agent.log
    acting, reading = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, READ_TOKEN))

    assert requests.get(f"{agent.url}/metrics", timeout=LONG_S).status_code == 401
    assert requests.get(f"{agent.url}/metrics", headers=reading, timeout=LONG_S).status_code == 200
    assert requests.post(f"{agent.url}/start", headers=reading, json=LABELS, timeout=LONG_S).status_code == 403
    assert requests.post(f"{agent.url}/start", headers=acting, json=LABELS, timeout=LONG_S).status_code == 200


def test_headers_of_proxies_are_ignored(daemon):
    """Any client may write them, so they decide neither who calls nor which host is called."""
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


def test_a_token_file_that_others_can_read_is_refused(daemon, tokens):
    tokens["token_file"].chmod(0o644)
    agent = daemon(**tokens)

    assert agent.process.wait(LONG_S) == 1
    assert f"chmod o-rw {tokens['token_file']}" in agent.log
    assert TOKEN not in agent.log


def test_no_secret_in_the_log(daemon, tokens):
    """The log at level debug has neither the agent's tokens nor what a client sent as one.

    This holds also if the request is refused, malformed, or meets a bug.
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


def test_a_path_cannot_forge_a_log_entry(daemon):
    """It contains a line break, and is logged because of a bug."""
    agent = daemon(BROKEN)
    forged = "2026-01-01 00:00:00,000 INFO    run forged"
    assert requests.get(f"{agent.url}/status?%0a{forged}", timeout=LONG_S).status_code == 500
    with socket.create_connection(agent.address) as client:
        client.sendall(f"GET /{forged}\x0b{forged} HTTP/1.1\r\n\r\n".encode())
        client.makefile().read()
    assert agent.end() == 0

    assert "run forged" in agent.log
    assert not [line for line in agent.log.splitlines() if line.startswith("2026-01-01")]


def test_a_certificate_makes_the_agent_serve_only_https(daemon, certificate):
    """A run from start to stop."""
    cert, key = certificate
    agent = daemon(tls_cert=cert, tls_key=key)
    assert agent.url.startswith("https://127.0.0.1:")
    start = requests.post(f"{agent.url}/start", json=LABELS, verify=str(cert), timeout=LONG_S)
    stop = requests.post(f"{agent.url}/stop", verify=str(cert), timeout=LONG_S)

    assert (start.status_code, stop.json()["exec"]) == (200, {"exec_count": 53})
    with pytest.raises(requests.ConnectionError):
        requests.get(agent.url.replace("https", "http"), timeout=LONG_S)


def test_old_versions_of_tls_are_refused(daemon, certificate, tmp_path, monkeypatch):
    """By the agent itself, on a machine whose policy would allow them, with a client that offers them."""
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


def test_silent_tls_clients_do_not_delay_others(daemon, certificate):
    """Not even during the handshake."""
    cert, key = certificate
    agent = daemon(tls_cert=cert, tls_key=key)
    silent = [socket.create_connection(agent.address) for _ in range(37)]
    silent[0].sendall(b"\x16\x03\x01")

    assert requests.get(f"{agent.url}/status", verify=str(cert), timeout=5).ok
    for client in silent:
        client.close()


@pytest.fixture
def guarded_socket(daemon, tmp_path, tokens):
    path = tmp_path / "agent.sock"
    assert daemon(host=f"unix:{path}", **tokens).url
    return path


def test_a_unix_socket_is_only_for_its_user(daemon, tmp_path):
    """Without network and token; it is removed when the agent ends."""
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
def test_a_unix_socket_requires_the_tokens_as_well(guarded_socket, call, token, status):
    assert unix_ask(guarded_socket, call, token).startswith(f"HTTP/1.1 {status} ")


def ask_as(path, *ids):
    done = subprocess.run([sys.executable, "-c", ASK, path, *ids], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


@as_root
def test_a_unix_socket_is_for_members_of_its_group(daemon, tmp_path):
    """Also if it is one of several groups of the user; nobody else, even if the file's mode would allow it."""
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


def test_the_caller_at_a_unix_socket_is_the_process_that_connected(daemon, tmp_path):
    """Pids in its request are looked up in its namespace."""
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
def test_the_health_check_calls_the_address_of_the_agent(daemon, tmp_path, host):
    """If it always called 127.0.0.1, a container with another address would never be healthy."""
    settings = {"host": host.format(tmp_path / "agent.sock"), "insecure": "true"}
    agent = daemon(**settings)
    assert agent.url

    assert healthy(agent, **settings) == 0
    assert healthy(agent, host=f"unix:{tmp_path}/none") == 1
    assert healthy(agent, host="127.0.0.3") == int(host != EVERYWHERE)
