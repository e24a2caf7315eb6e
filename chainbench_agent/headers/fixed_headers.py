"""The text of headers that BTF cannot give: macros, and files that are the same for every kernel."""

from collections.abc import Collection

from chainbench_agent.headers.bpf_constants import bpf_constants

# Empty files, as vmlinux.h has their declarations.  BCC's own headers include the first two lines; programs that are
# written for real kernel headers, such as the tools that come with BCC, include the others.
_STUBS = """
    uapi/linux/bpf.h uapi/linux/if_packet.h uapi/linux/if_ether.h linux/log2.h linux/types.h
    linux/bpf_common.h
    linux/bio.h linux/blk-mq.h linux/blk_types.h linux/blkdev.h linux/bpf.h linux/compaction.h linux/cred.h
    linux/dcache.h linux/delay.h linux/errno.h linux/fdtable.h linux/fs.h linux/fs_struct.h linux/in.h
    linux/in6.h linux/init_task.h linux/interrupt.h linux/ip.h linux/ipv6.h linux/irq.h linux/irqdesc.h
    linux/kasan.h linux/kernel.h linux/kobject.h linux/limits.h linux/list.h linux/memcontrol.h linux/mm.h
    linux/mm_types.h linux/mmzone.h linux/mount.h linux/mutex.h linux/net.h linux/netdevice.h linux/nfs_fs.h
    linux/ns_common.h linux/nsproxy.h linux/oom.h linux/path.h linux/perf_event.h linux/pid.h
    linux/pid_namespace.h linux/ptrace.h linux/rwsem.h linux/sched.h linux/sched/signal.h linux/sched/task.h
    linux/security.h linux/signal.h linux/skbuff.h linux/slab.h linux/slab_def.h linux/slub_def.h
    linux/socket.h linux/stat.h linux/time.h linux/time64.h linux/tty.h linux/udp.h linux/uio.h
    linux/utsname.h linux/virtio.h linux/workqueue.h linux/writeback.h
    net/inet_connection_sock.h net/ip.h net/ipv6.h net/net_namespace.h net/request_sock.h
    net/tcp.h net/tcp_states.h net/udp.h
    uapi/linux/bpf_perf_event.h uapi/linux/in.h uapi/linux/in6.h uapi/linux/ip.h uapi/linux/ipv6.h
    uapi/linux/limits.h uapi/linux/openat2.h uapi/linux/perf_event.h uapi/linux/ptrace.h uapi/linux/stat.h
    uapi/linux/tcp.h uapi/linux/types.h uapi/linux/udp.h uapi/linux/unistd.h
"""

# Included before everything else.  The guards keep BCC's own copy of the kernel's bpf.h out.
_KCONFIG = """\
#ifndef CB_KCONFIG_H
#define CB_KCONFIG_H
#include <linux/autoconf.h>
#include <vmlinux.h>
#define _UAPI__LINUX_BPF_H__
#define __LINUX_BPF_H__
#endif
"""

# Names that the kernel's headers define for members of members.
_SOCK_H = """\
#pragma once
#define sk_family __sk_common.skc_family
#define sk_state __sk_common.skc_state
#define sk_prot __sk_common.skc_prot
#define sk_net __sk_common.skc_net
#define sk_num __sk_common.skc_num
#define sk_dport __sk_common.skc_dport
#define sk_daddr __sk_common.skc_daddr
#define sk_rcv_saddr __sk_common.skc_rcv_saddr
#define sk_v6_daddr __sk_common.skc_v6_daddr
#define sk_v6_rcv_saddr __sk_common.skc_v6_rcv_saddr
#define sk_bound_dev_if __sk_common.skc_bound_dev_if
#define sk_flags __sk_common.skc_flags
"""
_INET_SOCK_H = """\
#pragma once
#include <net/sock.h>
#define inet_daddr sk.__sk_common.skc_daddr
#define inet_rcv_saddr sk.__sk_common.skc_rcv_saddr
#define inet_dport sk.__sk_common.skc_dport
#define inet_num sk.__sk_common.skc_num
#define inet_sk(sk) ((struct inet_sock *)(sk))
"""
_TCP_H = """\
#pragma once
#include <net/inet_sock.h>
#define tcp_sk(sk) ((struct tcp_sock *)(sk))
"""

# Numbers that never change.  If a kernel has one of them as an enumerator, the enumerator is used.
_CONSTANTS = {
    "NULL": "((void *)0)",
    "AF_UNIX": 1,
    "AF_INET": 2,
    "AF_INET6": 10,
    "SOL_IP": 0,
    "SOL_SOCKET": 1,
    "SCM_RIGHTS": 1,
    "ETH_P_IP": 0x0800,
    "ETH_P_IPV6": 0x86DD,
    "ETH_P_ARP": 0x0806,
    "TASK_COMM_LEN": 16,
    "TASK_RUNNING": 0,
    "TASK_INTERRUPTIBLE": 1,
    "TASK_UNINTERRUPTIBLE": 2,
    "PF_KTHREAD": 0x00200000,
    "NAME_MAX": 255,
    "PATH_MAX": 4096,
    "IFNAMSIZ": 16,
    "DISK_NAME_LEN": 32,
    "REQ_OP_BITS": 8,
    "REQ_OP_MASK": 255,
    "NSEC_PER_SEC": "1000000000L",
    "NSEC_PER_MSEC": "1000000L",
    "NSEC_PER_USEC": "1000L",
    "U64_MAX": "(~0ULL)",
    "S_IFMT": 0o170000,
    "S_IFSOCK": 0o140000,
    "S_IFREG": 0o100000,
}

# BPF_STACK_TRACE passes its size through roundup_pow_of_two in an initializer: that must be a constant.
_MACROS = """\
#define __user
#define __kernel
#define __rcu
#define __percpu
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define __always_inline inline __attribute__((always_inline))
#define noinline __attribute__((noinline))
#define offsetof(type, member) __builtin_offsetof(type, member)
#define container_of(ptr, type, member) ((type *)((void *)(ptr) - offsetof(type, member)))
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzl((n) - 1UL)))
#define READ_ONCE(x) (x)
#define S_ISREG(mode) (((mode) & S_IFMT) == S_IFREG)
#define S_ISSOCK(mode) (((mode) & S_IFMT) == S_IFSOCK)
#define ntohs(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#define htons(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)
#define be16_to_cpu(x) __builtin_bswap16(x)
#define be32_to_cpu(x) __builtin_bswap32(x)
#define be64_to_cpu(x) __builtin_bswap64(x)
"""


def macros(known: Collection[str]) -> str:
    """C text of the macros; a macro must not hide an enumerator, so those in `known` are left out."""
    constants = {name: value for name, value in (_CONSTANTS | bpf_constants()).items() if name not in known}
    return "".join(f"#define {name} {value}\n" for name, value in constants.items()) + _MACROS


def fixed_files() -> dict[str, str]:
    """Path below include/ → text, of every file that is the same on every kernel."""
    return dict.fromkeys(_STUBS.split(), "") | {
        "linux/kconfig.h": _KCONFIG,
        "linux/tcp.h": _TCP_H,
        "net/inet_sock.h": _INET_SOCK_H,
        "net/sock.h": _SOCK_H,
    }


def page_h(page_size: int) -> str:
    """The text of asm/page.h; `page_size` is in bytes, a power of two."""
    shift = page_size.bit_length() - 1
    return f"#define PAGE_SHIFT {shift}\n#define PAGE_SIZE (1UL << PAGE_SHIFT)\n"


def version_h(release: str) -> str:
    """The text of linux/version.h; `release` as uname gives it, of which only the first three numbers count."""
    numbers = [int(part) for part in release.partition("-")[0].split(".")[:3] if part.isdigit()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return (
        f"#define LINUX_VERSION_CODE {(major << 16) + (minor << 8) + min(patch, 255)}\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))\n"
    )
