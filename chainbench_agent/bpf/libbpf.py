"""Bindings to libbpf, with ctypes: load and attach programs, read and write maps and ring buffers.

The daemon never imports bcc, as its LLVM would stay in memory.  A child process compiles (loading/compiler.py), and
libbpf1 (a dependency of Debian's libbpfcc) does the rest.  All functions raise OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

BPF_STATS_RUN_TIME = 0
BATCH = 4096
RETURN_0 = struct.pack("=QQ", 0xB7, 0x95)
"""A program that does nothing: r0 = 0; exit."""


class _TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf 0.7 and later.  Zeros after the size mean: run once, on this CPU."""

    _fields_ = (("size", ctypes.c_size_t), ("rest", ctypes.c_byte * 88))


class _MapOptions(ctypes.Structure):
    """The first members of struct bpf_map_create_opts."""

    _fields_ = (("size", ctypes.c_size_t), ("before", ctypes.c_uint32 * 5), ("flags", ctypes.c_uint32))


class _LoadOptions(ctypes.Structure):
    """The first members of struct bpf_prog_load_opts."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("attach_type", ctypes.c_uint32),
        ("before", ctypes.c_uint32 * 4),
        ("attach_function", ctypes.c_uint32),
        ("between", ctypes.c_uint32 * 2),
        ("debugging", ctypes.c_uint64 * 5),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log", ctypes.c_void_p),
    )


class VerifierLog:
    """Size of the verifier's log; the kernel requires space for all of it, and logs every step."""

    def __init__(self) -> None:
        self.text = ctypes.create_string_buffer(1 << 24)

    def read(self) -> str:
        return self.text.value.decode(errors="replace")


@cache
def _library() -> ctypes.CDLL:
    for name in ("libbpf.so.1", "libbpf.so.0"):
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
    raise OSError(errno.ENOENT, "libbpf is not installed; it comes with: apt install python3-bpfcc")


def library_name() -> str:
    """The file name of the library in use; raises OSError if it is not installed."""
    return str(_library()._name)  # noqa: SLF001 - ctypes has no public name for it


def _checked(result: int, what: str) -> int:
    """The result of a call, or OSError: libbpf 1 returns -errno, libbpf 0 returned -1 and set errno."""
    if result >= 0:
        return result
    code = ctypes.get_errno() if result == -1 and ctypes.get_errno() else -result
    raise OSError(code, f"{what}: {os.strerror(code)}")


def create_map(name: str, kind: int, sizes: tuple[int, int, int], flags: int) -> int:
    """Creates a map.  `kind`: `enum bpf_map_type`; `sizes`: of a key, of a value, in entries; `flags`: BPF_F_*."""
    options = _MapOptions(size=ctypes.sizeof(_MapOptions), flags=flags)
    result = _library().bpf_map_create(kind, name[:15].encode(), *sizes, ctypes.byref(options))
    return _checked(result, f"create map {name}")


def load_program(name: str, code: bytes, kind: tuple[int, int, int], log: VerifierLog | None = None) -> int:
    """Loads a program, with the licence of our probes.

    `kind`: `enum bpf_prog_type`, `enum bpf_attach_type`, and the BTF id of the function; 0 for what does not apply.
    """
    options = _LoadOptions(size=ctypes.sizeof(_LoadOptions), attach_type=kind[1], attach_function=kind[2])
    if log:
        options.log_level, options.log_size = 1, len(log.text)
        options.log = ctypes.addressof(log.text)
    head = (kind[0], name[:15].encode(), b"GPL", code, ctypes.c_size_t(len(code) // 8))
    return _checked(_library().bpf_prog_load(*head, ctypes.byref(options)), f"load program {name}")


def open_raw_tracepoint(name: str | None, program: int) -> int:
    """Attaches `program`; closing the returned descriptor detaches it.  `name` is None for fentry and fexit."""
    encoded = name.encode() if name else None
    return _checked(_library().bpf_raw_tracepoint_open(encoded, program), f"attach {name or 'tracing program'}")


def run_program(program: int) -> None:
    """Runs a raw tracepoint program once, in this thread (BPF_PROG_RUN; Linux 5.10)."""
    options = _TestRunOptions(size=ctypes.sizeof(_TestRunOptions))
    _checked(_library().bpf_prog_test_run_opts(program, ctypes.byref(options)), "BPF_PROG_RUN")


def enable_stats() -> int:
    """Enables the kernel's run time accounting of BPF programs, until the returned descriptor is closed."""
    return _checked(_library().bpf_enable_stats(BPF_STATS_RUN_TIME), "BPF_ENABLE_STATS")


def program_code(program: int) -> tuple[bytes, int]:
    """A loaded program's instructions after the verifier, and the size of its machine code (0: not compiled).

    The instructions are empty if the kernel hides them, as it does with bpf_jit_harden.
    """
    info = _program_info(program)
    code = ctypes.create_string_buffer(info[_XLATED_LENGTH])
    filled = _program_info(program, code)
    return code.raw if filled[_XLATED_CODE] else b"", filled[_JITED_LENGTH]


_JITED_LENGTH, _XLATED_LENGTH, _XLATED_CODE = 4, 5, 8  # words of struct bpf_prog_info; the last is a pointer


def _program_info(program: int, code: ctypes.Array[ctypes.c_char] | None = None) -> ctypes.Array[ctypes.c_uint32]:
    info = (ctypes.c_uint32 * 64)()  # struct bpf_prog_info is shorter
    if code:
        info[_XLATED_LENGTH] = len(code)
        ctypes.c_uint64.from_buffer(info, 4 * _XLATED_CODE).value = ctypes.addressof(code)
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _checked(_library().bpf_obj_get_info_by_fd(program, info, ctypes.byref(size)), "program info")
    return info


def open_ring(map_fd: int, callback: Any) -> int:
    """Opens a reader of a ring buffer (Linux 5.8); poll_ring() calls `callback(context, data, size)`."""
    new = _library().ring_buffer__new
    new.restype = ctypes.c_void_p
    ring = new(map_fd, callback, None, None)
    if not ring or ctypes.c_ssize_t(ring).value in range(-4095, 0):  # libbpf 0 answers with -errno
        code = ctypes.get_errno()
        raise OSError(code, f"ring buffer: {os.strerror(code)}")
    return int(ring)


def poll_ring(ring: int, timeout_ms: int) -> None:
    """Waits until the ring contains something, and calls the callback for everything in it."""
    result = _library().ring_buffer__poll(ctypes.c_void_p(ring), timeout_ms)
    if result < 0 and (ctypes.get_errno() or -result) != errno.EINTR:
        _checked(result, "ring buffer")


def close_ring(ring: int) -> None:
    _library().ring_buffer__free(ctypes.c_void_p(ring))


@cache
def possible_cpus() -> int:
    """The number of CPUs that may ever be online: a per-CPU value has room for each."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def lookup_all_cpus(map_fd: int, value_size: int, index: int = 0) -> bytes:
    """Element `index` of a per-CPU array: one value per possible CPU, each padded to 8 bytes."""
    return lookup(map_fd, index, -(-value_size // 8) * 8 * possible_cpus())


def lookup(map_fd: int, index: int, size: int) -> bytes:
    """Element `index` of an array."""
    key = ctypes.c_uint32(index)
    value = ctypes.create_string_buffer(size)
    _checked(_library().bpf_map_lookup_elem(map_fd, ctypes.byref(key), value), "map lookup")
    return value.raw


def update(map_fd: int, index: int, value: bytes) -> None:
    key = ctypes.c_uint32(index)
    _checked(_library().bpf_map_update_elem(map_fd, ctypes.byref(key), value, 0), "map update")


def mmap_array(map_fd: int, size: int, protection: int = mmap.PROT_READ) -> mmap.mmap:
    """Maps `size` bytes of an array into memory (BPF_F_MMAPABLE; Linux 5.5)."""
    return mmap.mmap(map_fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.MAP_SHARED, protection)


def read_array(map_fd: int, size: int) -> bytes:
    """A copy of an array that can be mapped into memory."""
    with mmap_array(map_fd, size) as memory:
        return memory[:size]


def clear_array(map_fd: int, size: int) -> None:
    """Zeroes an array that can be mapped into memory."""
    with mmap_array(map_fd, size, mmap.PROT_WRITE) as memory:
        memory.write(bytes(size))


def keys(map_fd: int, key_size: int) -> list[bytes]:
    """Every key of a map that is not written meanwhile."""
    found: list[bytes] = []
    current: ctypes.Array[ctypes.c_char] | None = None
    following = ctypes.create_string_buffer(key_size)
    with suppress(FileNotFoundError):  # after the last key
        while True:
            _checked(_library().bpf_map_get_next_key(map_fd, current, following), "map keys")
            found.append(following.raw)
            current = ctypes.create_string_buffer(following.raw, key_size)
    return found


def items(map_fd: int, key_size: int, value_size: int) -> dict[bytes, bytes]:
    """Every entry of a hash map, in batches (Linux 5.6).  Entries added meanwhile may be missing."""
    found: dict[bytes, bytes] = {}
    token = ctypes.create_string_buffer(max(key_size, 8))
    batch = None
    while True:
        batch_keys = ctypes.create_string_buffer(BATCH * key_size)
        values = ctypes.create_string_buffer(BATCH * value_size)
        count = ctypes.c_uint32(BATCH)
        result = _library().bpf_map_lookup_batch(map_fd, batch, token, batch_keys, values, ctypes.byref(count), None)
        if (code := 0 if result >= 0 else (ctypes.get_errno() or -result)) not in (0, errno.ENOENT):
            raise OSError(code, f"map batch lookup: {os.strerror(code)}")
        its_keys, its_values = memoryview(batch_keys), memoryview(values)  # a slice of .raw would copy all of it
        for i in range(count.value):
            found[bytes(its_keys[i * key_size :][:key_size])] = bytes(its_values[i * value_size :][:value_size])
        if code == errno.ENOENT:
            return found
        batch = token


def delete(map_fd: int, key: bytes) -> None:
    """Removes a key if it is there."""
    with suppress(FileNotFoundError):
        _checked(_library().bpf_map_delete_elem(map_fd, key), "map delete")
