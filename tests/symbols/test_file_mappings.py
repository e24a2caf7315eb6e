"""The mappings of files in processes."""

import os
import subprocess
from pathlib import Path

from chainbench_agent.symbols.file_mappings import open_mapped_file, read_mappings


def test_a_mapping_has_the_path_of_a_file_with_any_name(tmp_path):
    """Lines of `maps` end at newlines only."""
    program = os.fsencode(tmp_path) + b"/a\nb \x85\x0c\xe9  "
    Path(os.fsdecode(program)).write_bytes(Path("/bin/cat").read_bytes())
    Path(os.fsdecode(program)).chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)
        paths = {mapped.path for mapped in read_mappings(process.pid)}
        process.stdin.close()

    assert os.fsdecode(program) in paths


def test_a_mapped_file_is_opened_through_its_process():
    mapping = next(one for one in read_mappings(os.getpid()) if Path(one.path).name.startswith("libc.so"))
    fd = open_mapped_file(os.getpid(), mapping)

    assert os.fstat(fd).st_ino == mapping.inode
    os.close(fd)


def test_a_process_that_has_ended_has_no_mappings():
    (mapping, *_) = read_mappings(os.getpid())
    with subprocess.Popen(["true"]) as process:
        process.wait()

    assert read_mappings(process.pid) == ()
    assert open_mapped_file(process.pid, mapping) == -1
