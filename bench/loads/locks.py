"""Four processes make and remove entries of one directory: each waits for its lock."""

import os
import sys

count, directory = max(1, int(sys.argv[1]) // 4), sys.argv[2]
children = []
for number in range(4):
    child = os.fork()
    if not child:
        path = f"{directory}/{number}"
        for _ in range(count):
            os.mkdir(path)
            os.rmdir(path)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
