"""Compute a little, sleep and make some system calls, so often: some 50,000 events a second."""

import os
import sys
import time

for _ in range(int(sys.argv[1])):
    time.sleep(20e-6)
    sum(range(500))
    os.getppid()
    os.getppid()
    os.getppid()
