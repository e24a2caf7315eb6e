"""The C libraries of processes, and the locations of their functions."""

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


def test_a_function_is_located_where_the_dynamic_linker_found_it(own):
    import ctypes

    lock = ctypes.cast(ctypes.CDLL(None).pthread_mutex_lock, ctypes.c_void_p).value
    (mapping,) = (m for m in read_mappings(os.getpid()) if m.start <= lock < m.end)
    (place,) = own.locations("pthread_mutex_lock")

    assert place.offset == lock - mapping.start + mapping.offset
    assert Path(place.file).samefile(mapping.path)
    stat = Path(mapping.path).stat()
    assert mapping.inode == stat.st_ino


def test_a_function_that_no_library_has_is_nowhere(own):
    assert own.locations("pthread_mutex_lick") == []


def test_a_library_of_several_processes_is_located_once():
    """A uprobe belongs to the file, not to the process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found = LibcFunctions([os.getpid(), other.pid, os.getpid()])
        locations = found.locations("pthread_mutex_lock")
        assert found.mapped.keys() == {os.getpid(), other.pid}
        found.close()
        other.communicate(b"\n")

    assert len(locations) == 1


def test_a_process_that_has_ended_has_no_libraries():
    """And no descriptor stays open."""
    with subprocess.Popen(["true"]) as other:
        other.wait()
    before = descriptors()
    found = LibcFunctions([other.pid, 1 << 22])

    assert found.locations("pthread_mutex_lock") == []
    assert descriptors() == before


def test_all_descriptors_are_closed():
    before = descriptors()
    found = LibcFunctions([os.getpid()])
    assert len(descriptors()) > len(before)
    found.close()
    assert descriptors() == before
    assert found.locations("pthread_mutex_lock") == []


def test_a_static_program_contains_the_functions(tmp_path):
    """A dynamically linked program only calls them."""
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
def test_a_replaced_library_is_the_one_that_still_runs(tmp_path, monkeypatch):
    """It is no longer the file at its path."""
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
def test_c_libraries_are_recognized_by_their_names(path, is_one):
    """The files of glibc, before 2.34 and since, and of musl."""
    assert bool(C_LIBRARY.search(path)) is is_one
