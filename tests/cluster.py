"""A PostgreSQL of our own, that ends with whoever started it."""

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534

GUARD = 'cat; "$1" --pgdata data --wait --mode immediate stop; rm -rf "$PWD"'
"""Waits for the end of its input: that comes however its parent ends, by SIGKILL as well, where no `finally` is run.
pg_ctl has the server as a daemon, which nobody's end would reach."""


@contextmanager
def running(initdb):
    """Runs a Cluster on a unix socket, and removes it; `initdb` is in the directory of PostgreSQL's programs."""
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    home = Path(tempfile.mkdtemp(prefix="chainbench-pg-", dir="/tmp"))  # short: a socket's path has 107 characters
    if as_nobody:
        os.chown(home, NOBODY, NOBODY)

    def run(program, *arguments):
        subprocess.run([*as_nobody, initdb.with_name(program), *arguments], check=True, cwd=home, capture_output=True)

    guarded = [*as_nobody, "sh", "-c", GUARD, "guard", initdb.with_name("pg_ctl")]
    # in a session of its own: Ctrl-C, and what ends the whole process group, must not reach it
    with subprocess.Popen(guarded, cwd=home, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        options = ("--auth", "trust", "--username", "agent", "--no-sync", "--encoding", "UTF8")
        run("initdb", "--pgdata", "data", *options)
        cluster = Cluster(home, run)
        cluster.start()
        yield cluster


class Cluster:
    def __init__(self, home, run):
        self.home = home
        self._run = run
        self._made = 0

    @property
    def pid(self):
        return int((self.home / "data/postmaster.pid").read_text().split()[0])

    def url(self):
        """Makes an empty database, and returns its URL."""
        self._made += 1
        self._run("createdb", "--host", str(self.home), "--username", "agent", f"d{self._made}")
        return f"postgresql://agent@/d{self._made}?host={self.home}"

    def start(self):
        options = f"-c listen_addresses='' -c unix_socket_directories={self.home} -c fsync=off"
        self._run("pg_ctl", "--pgdata", "data", "--wait", "--log", "log", "--options", options, "start")

    def stop(self):
        """In the midst of whatever goes on: every connection breaks."""
        self._run("pg_ctl", "--pgdata", "data", "--wait", "--mode", "immediate", "stop")
