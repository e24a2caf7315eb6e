"""The files of probes/plain are BCC programs of their own, to be loaded and attached by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bpf

REPO = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("plain_bcc.py")
KPROBES = Path("/sys/bus/event_source/devices/kprobe").exists()

FUNCTIONS = {
    "network": """trace_tcp_connect trace_tcp_sendmsg trace_tcp_recvmsg trace_tcp_retransmit_skb
        trace_udp_sendmsg trace_udp_recvmsg""",
    "memory": """trace_handle_mm_fault trace_kmalloc trace_oom_kill_process trace_cache_miss trace_swap_readpage
        trace_swap_writepage""",
    "io": """trace_do_sys_open trace_vfs_read trace_vfs_write trace_filp_close trace_mark_page_accessed
        trace_add_to_page_cache_lru trace_blk_account_io_start trace_blk_account_io_done trace_do_fsync""",
    "cpu": "trace_throttle_cfs_rq",
    "locks": """trace_mutex_lock trace_mutex_unlock trace_spin_lock trace_spin_unlock trace_futex_wait trace_futex_wake
        trace_rcu_stall_warning trace_sem_wait trace_lock_acquire""",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """`plain(file, …)` → what the script found, with a whole header tree of this kernel."""
    tree = tmp_path_factory.mktemp("headers") / "tree"
    subprocess.run([sys.executable, "-m", "chainbench_agent", "header-tree", tree], check=True)

    def load(file, *attachments):
        environment = os.environ | {"BCC_KERNEL_SOURCE": str(tree)}
        command = [sys.executable, SCRIPT, file, *attachments]
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return load


@pytest.mark.tracefs
@pytest.mark.parametrize("module", FUNCTIONS)
def test_each_file_loads(plain, module):
    """By `BPF(src_file=…)`, from the directory above probes/: every function passes the verifier."""
    assert plain(f"probes/plain/{module}.c")["functions"] == FUNCTIONS[module].split()


def test_every_file_is_tested():
    """A file of probes/plain that is not in the table above would not be loaded by any test."""
    assert {path.stem for path in (REPO / "probes/plain").iterdir()} == FUNCTIONS.keys()


if KPROBES:  # elsewhere there is nothing to attach to

    def test_attached_by_hand(plain):
        """As in the file's own example: 53 times 101 bytes, by process."""
        found = plain(
            "probes/plain/network.c",
            "kprobe:tcp_sendmsg=trace_tcp_sendmsg",
            "kprobe:tcp_cleanup_rbuf=trace_tcp_recvmsg",
        )

        ((_pid, traffic),) = [(pid, t) for pid, t in found["traffic"].items() if t["sends"] == 53]
        assert traffic["sent"] == 53 * 101
        assert traffic["received"] >= 53 * 101  # before 6.1 the function is called more than once for the same bytes
