"""So many threads that sleep and wake up now and then, until the input ends; 2,000 wake-ups a second in all."""

import os
import sys
import threading
import time

count = int(sys.argv[1])
threading.stack_size(64 * 1024)


def nap() -> None:
    while True:
        time.sleep(count / 2000)


for _ in range(count):
    threading.Thread(target=nap, daemon=True).start()
print(flush=True)
sys.stdin.read()
os._exit(0)
