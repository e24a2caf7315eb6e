"""The C libraries of processes, as /proc tells them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packages import require

from chainbench_agent.symbols import file_mappings
from chainbench_agent.symbols.elf import read_functions
from chainbench_agent.symbols.file_mappings import read_mappings
from chainbench_agent.symbols.libc_functions import C_LIBRARY, LibcFunctions


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def own():
    found = LibcFunctions([os.getpid()])
    yield found
    found.close()


def test_our_own_library(own):
    """Where the address that the dynamic linker gives lies."""
    import ctypes

    lock = ctypes.cast(ctypes.CDLL(None).pthread_mutex_lock, ctypes.c_void_p).value
    (mapping,) = (m for m in read_mappings(os.getpid()) if m.start <= lock < m.end)
    (place,) = own.locations("pthread_mutex_lock")

    assert place.offset == lock - mapping.start + mapping.offset
    assert Path(place.file).samefile(mapping.path)
    stat = Path(mapping.path).stat()
    assert mapping.inode == stat.st_ino


def test_what_no_library_has(own):
    assert own.locations("pthread_mutex_lick") == []


def test_a_library_of_many_processes_is_one():
    """Probed once, because a probe is in the file, not in the process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found = LibcFunctions([os.getpid(), other.pid, os.getpid()])
        locations = found.locations("pthread_mutex_lock")
        assert found.mapped.keys() == {os.getpid(), other.pid}
        found.close()
        other.communicate(b"\n")

    assert len(locations) == 1


def test_a_process_that_is_gone():
    """It has nothing; and nothing is left open."""
    with subprocess.Popen(["true"]) as other:
        other.wait()
    before = descriptors()
    found = LibcFunctions([other.pid, 1 << 22])

    assert found.locations("pthread_mutex_lock") == []
    assert descriptors() == before


def test_all_is_given_back():
    before = descriptors()
    found = LibcFunctions([os.getpid()])
    assert len(descriptors()) > len(before)
    found.close()
    assert descriptors() == before
    assert found.locations("pthread_mutex_lock") == []


def test_a_static_program(tmp_path):
    """It brings the functions itself; one that is linked dynamically only calls them."""
    code = tmp_path / "code.c"
    code.write_text(
        "#include <pthread.h>\n#include <stdio.h>\npthread_mutex_t m;\n"
        'int main(void) { pthread_mutex_lock(&m); puts(""); fflush(stdout); return getchar(); }'
    )
    for options, alone in (("-static", True), ("-pie", False)):
        subprocess.run([require("cc"), options, "-pthread", code, "-o", tmp_path / options], check=True)
        with subprocess.Popen([tmp_path / options], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            found = LibcFunctions([process.pid])
            locations = found.locations("pthread_mutex_lock")
            with (tmp_path / options).open("rb") as file:
                inside = read_functions(file).offsets("pthread_mutex_lock")
            assert [Path(place.file).samefile(tmp_path / options) for place in locations] == [alone]
            assert ({place.offset for place in locations} == inside) is alone
            found.close()
            process.communicate(b"\n")


@pytest.mark.bpf
def test_a_file_that_was_replaced(tmp_path, monkeypatch):
    """It is no longer what is at its path, and still what runs."""
    library = tmp_path / "libc.so.6"
    (ours,) = {m.path for m in read_mappings(os.getpid()) if Path(m.path).name.startswith("libc.so")}
    library.write_bytes(Path(ours).read_bytes())
    code = f"import ctypes; ctypes.CDLL({str(library)!r}); print(flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        library.unlink()
        library.write_bytes(b"another")
        found = LibcFunctions([process.pid])
        assert len(found.locations("pthread_mutex_lock")) == 2
        found.close()
        monkeypatch.setattr(file_mappings, "_paths", lambda _pid, _mapping: [library])
        assert LibcFunctions([process.pid]).locations("pthread_mutex_lock") == []
        process.communicate(b"\n")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", True),
        ("/lib/x86_64-linux-gnu/libc-2.31.so", True),
        ("/lib/x86_64-linux-gnu/libpthread-2.31.so", True),
        ("/lib/x86_64-linux-gnu/libpthread.so.0", True),
        ("/lib/ld-musl-x86_64.so.1", True),
        ("/usr/lib/libc.so.6 (deleted)", True),
        ("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", False),
        ("/usr/lib/x86_64-linux-gnu/libcap.so.2", False),
    ],
)
def test_what_a_c_library_is_called(path, is_one):
    """Glibc's until 2.33 and since, and musl's."""
    assert bool(C_LIBRARY.search(path)) is is_one
