"""Compiles with BCC in a child process: bcc reads its environment when it is imported, and LLVM is large."""

import json
import os
import subprocess
import sys

COMPILE = """
import json, os, sys
from bcc import BPF
BPF._trace_autoload = lambda self: None
unit = BPF(text=sys.stdin.read())
print(json.dumps({f: unit.dump_func(f.encode()).hex() for f in sys.argv[1:]}))
"""


def compile_in(tree, text, *functions):
    """The instructions of these functions, compiled by BCC in a child process."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, *functions],
        input=text,
        capture_output=True,
        text=True,
        cwd=tree,  # BCC looks there first
        env=os.environ | {"BCC_KERNEL_SOURCE": str(tree)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: bytes.fromhex(code) for name, code in json.loads(done.stdout).items()}, done.stderr
