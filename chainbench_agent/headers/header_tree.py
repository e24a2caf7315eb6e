"""Writes a tree of C headers for BCC from the kernel's BTF, and caches it.

To use it, set BCC_KERNEL_SOURCE to the tree before bcc is imported, and compile with the tree as the working
directory, because BCC looks there first.  The whole tree serves any BCC program; a tree with only the types that a
program names compiles several times faster.
"""

import atexit
import gzip
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from chainbench_agent.headers.btf import Btf
from chainbench_agent.headers.btf_types import ENUMS, RECORDS, Kind
from chainbench_agent.headers.c_writer import CWriter
from chainbench_agent.headers.fixed_headers import fixed_files, macros, page_h, version_h

FORMAT = 2  # to be raised when the same BTF must give another tree
_STRUCTS = "structs.txt"
_NAMED = (*RECORDS, *ENUMS, Kind.TYPEDEF, Kind.FWD)

# BCC's own helpers.h needs these in a pruned tree: types by value, enums by one of their constants, and names
# of structs that are only pointed to.
_BCC_TYPES = """
    u8 u16 u32 u64 s8 s16 s32 s64 __u8 __u16 __u32 __u64 __s8 __s16 __s32 __s64 __be16 __be32 __be64 __wsum
    bool size_t ssize_t uintptr_t pid_t uid_t gid_t dev_t loff_t sector_t gfp_t umode_t fmode_t
    bpf_func_id bpf_map_type bpf_stack_build_id bpf_raw_tracepoint_args bpf_perf_event_data pt_regs
    bpf_pidns_info bpf_perf_event_value
"""
_BCC_CONSTANTS = """
    BPF_ANY BPF_F_NO_PREALLOC BPF_F_CURRENT_CPU BPF_F_USER_STACK BPF_RB_NO_WAKEUP TASK_COMM_LEN
    TCP_ESTABLISHED IPPROTO_TCP
"""
_BCC_POINTERS = """
    bpf_sock bpf_sock_tuple bpf_sysctl bpf_spin_lock bpf_tcp_sock bpf_pidns_info seq_file __sk_buff xdp_md
    btf_ptr bpf_redir_neigh bpf_timer bpf_dynptr socket unix_sock sk_buff bpf_map task_struct
    bpf_cgroup_storage_key
"""


def kernel_config(release: str | None = None) -> dict[str, str]:
    """The running kernel's CONFIG_* options, as in its .config: "y", "m", "250", '"text"'.

    Empty if neither /proc nor /boot has them.
    """
    boot = Path("/boot") / f"config-{release or os.uname().release}"
    for path in (Path("/proc/config.gz"), boot):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        return dict(re.findall(r"^(CONFIG_\w+)=(.+)$", text.decode(), re.MULTILINE))
    return {}


def write_header_tree(
    dest: Path, btf: Btf, config: Mapping[str, str], roots: Iterable[str] | None, release: str
) -> tuple[str, ...]:
    """Writes the tree into `dest`, and returns the names of the structs and unions that it defines.

    `roots` are names of structs, unions, enums, typedefs or enumerators.  The types that they contain are defined too,
    the types that they point to are declared.  A name that this kernel lacks is ignored.  None means every type.
    Raises BtfError, and OSError if `dest` cannot be written.
    """
    writer = CWriter(btf)
    if roots is None:
        _define_all(writer, btf)
    else:
        _define_roots(writer, btf, roots)
    for name in _BCC_POINTERS.split():
        writer.declare(name)
    files = {f"include/{name}": text for name, text in fixed_files().items()} | {
        "include/linux/autoconf.h": _autoconf(config),
        "include/linux/version.h": version_h(release),
        "include/asm/page.h": page_h(os.sysconf("SC_PAGE_SIZE")),
        "include/vmlinux.h": f"#pragma once\n{writer.text}{_dname(btf)}{macros(writer.constants)}",
        _STRUCTS: "".join(f"{name}\n" for name in writer.structs),
    }
    for name, text in files.items():
        path = dest / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tuple(writer.structs)


def cached_tree(cache_dir: Path, btf: Btf, roots: Iterable[str] | None, release: str) -> Path:
    """The tree for this BTF and these roots; it is written, and the BTF parsed, only if `cache_dir` does not have it.

    A tree is renamed into place when it is complete, so several processes may call this at once.
    If `cache_dir` cannot be read or written, the tree is a temporary one, which is deleted when this process exits.
    """
    roots = None if roots is None else sorted(set(roots))
    rest = hashlib.sha256(repr((FORMAT, roots, release)).encode()).hexdigest()
    tree = cache_dir / f"{btf.digest[:16]}-{rest[:16]}"
    try:
        if (tree / _STRUCTS).exists():
            return tree
        cache_dir.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_dir))
    except OSError:
        tree = Path(tempfile.mkdtemp(prefix="chainbench-headers-"))
        atexit.register(shutil.rmtree, tree, ignore_errors=True)
        write_header_tree(tree, btf, kernel_config(release), roots, release)
        return tree
    try:
        write_header_tree(building, btf, kernel_config(release), roots, release)
        building.chmod(0o755)
        building.rename(tree)
    except OSError:
        if not (tree / _STRUCTS).exists():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return tree


def structs_in_tree(tree: Path) -> tuple[str, ...]:
    """The names that `write_header_tree` returned when it wrote this tree."""
    return tuple((tree / _STRUCTS).read_text().split())


def _define_all(writer: CWriter, btf: Btf) -> None:
    for type_id in btf.ids(*_NAMED):
        found = btf.type(type_id)
        if found.name or found.kind in ENUMS:
            writer.define(type_id)


def _define_roots(writer: CWriter, btf: Btf, roots: Iterable[str]) -> None:
    for name in (*_BCC_TYPES.split(), *_BCC_CONSTANTS.split(), *roots):
        named = (btf.find(name, *RECORDS), btf.find(name, *ENUMS), btf.find(name, Kind.TYPEDEF))
        for found in filter(None, (*named, btf.find_enumerator(name))):
            writer.define(found.id)


def _dname(btf: Btf) -> str:
    """The macro DNAME_INLINE_LEN, a size that differs from kernel to kernel."""
    for short_name in ("d_iname", "d_shortname.string"):
        if btf.member_offset("dentry", short_name) is not None:
            return f"#define DNAME_INLINE_LEN sizeof(((struct dentry *)0)->{short_name})\n"
    return ""


def _autoconf(config: Mapping[str, str]) -> str:
    """The text of linux/autoconf.h.  BCC requires CONFIG_BPF_SYSCALL, which a kernel with BTF has."""
    options = {"CONFIG_BPF_SYSCALL": "y"} | dict(config)
    forms = {"y": "#define {0} 1\n", "m": "#define {0}_MODULE 1\n"}
    return "".join(forms.get(value, "#define {0} {1}\n").format(name, value) for name, value in options.items())
