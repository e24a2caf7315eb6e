"""The workload of `chainbench-agent demo`: store records so that they survive a crash, check them, read them back.

A script that imports nothing of the agent.  `baseline` does naively what `optimized` does well; both write the same
file and print its length.  Each prints a line when it is ready, and begins when it reads one.

python demo_workload.py baseline|optimized FILE
"""

import os
import subprocess
import sys
from pathlib import Path

RECORDS = 600
BATCH = 50
RECORD = b"." * 63 + b"\n"


def baseline(path: Path) -> int:
    """Flush every record, start a checksum program for every batch, read byte by byte."""
    with path.open("wb", buffering=0) as file:
        for number in range(RECORDS):
            file.write(RECORD)
            os.fsync(file.fileno())
            if number % BATCH == 0:
                check(path)
    with path.open("rb", buffering=0) as file:
        length = 0
        while file.read(1):
            length += 1
    return length


def optimized(path: Path) -> int:
    """Write all records at once, flush and check them once, read them in one go."""
    with path.open("wb", buffering=0) as file:
        file.write(RECORD * RECORDS)
        os.fsync(file.fileno())
    check(path)
    with path.open("rb", buffering=0) as file:
        return len(file.read())


def check(path: Path) -> None:
    subprocess.run(["cksum", path], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    variants = {"baseline": baseline, "optimized": optimized}
    print("ready", flush=True)  # noqa: T201 - its output
    sys.stdin.readline()
    print(variants[sys.argv[1]](Path(sys.argv[2])))  # noqa: T201 - its output
