"""Code that more than one test has done by a process."""

TOUCH = """
import mmap
def touch(pages):
    m = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    for i in range(pages): m[i * 4096] = 1
    return m
"""


def eater(join):
    """Code of a process whose child joins the small group and is killed there."""
    return (
        f"import os, signal\n{TOUCH}\nchild = os.fork()\nif child == 0:\n    {join}    kept = touch(16381)\n"
        "    os._exit(0)\nassert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL"
    )
