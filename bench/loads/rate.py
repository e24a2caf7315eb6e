"""So many system calls a second, until the input ends."""

import os
import select
import sys
import time

rate = int(sys.argv[1])
batch = max(1, rate // 100)
print(flush=True)
began, done = time.monotonic(), 0
while done % (batch * 10) or not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(batch):
        os.getppid()
    done += batch
    time.sleep(max(0.0, began + done / rate - time.monotonic()))
