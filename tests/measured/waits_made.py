"""Waits of one kind each, of WAIT_S seconds: another thread or process ends them, or time does."""

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import tty as terminals

WAIT_S = 0.3

libc = ctypes.CDLL(None, use_errno=True)
MEMBARRIER = {"x86_64": 324, "aarch64": 283}[os.uname().machine]
MEMBARRIER_GLOBAL = 1


def later(act):
    threading.Thread(target=lambda: (time.sleep(WAIT_S), act())).start()


def tty():
    outer, inner = os.openpty()
    terminals.setraw(inner)
    later(lambda: os.write(outer, b"x"))
    os.read(inner, 1)


def inotify():
    watch, directory = libc.inotify_init(), os.path.realpath(".")
    libc.inotify_add_watch(watch, directory.encode(), 0x20)  # IN_OPEN
    later(lambda: os.open(directory, os.O_RDONLY))
    os.read(watch, 4096)


def eventfd():
    event = libc.eventfd(0, 0)
    later(lambda: os.write(event, struct.pack("q", 1)))
    os.read(event, 8)


def timerfd():
    timer = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
    libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 0, int(WAIT_S * 1e9)), None)
    os.read(timer, 8)


def signalfd():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    mask = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
    signals = libc.signalfd(-1, mask, 0)
    later(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    os.read(signals, 128)


def semaphore():
    known = libc.semget(0, 1, 0o1600)
    later(lambda: libc.semop(known, struct.pack("Hhh", 0, 1, 0), 1))
    libc.semop(known, struct.pack("Hhh", 0, -1, 0), 1)
    libc.semctl(known, 0, 0)  # IPC_RMID


def message_queue():
    queue, message = libc.msgget(0, 0o1600), struct.pack("l8s", 1, b"")
    later(lambda: libc.msgsnd(queue, message, 8, 0))
    libc.msgrcv(queue, bytes(64), 8, 0, 0)
    libc.msgctl(queue, 0, 0)  # IPC_RMID


def posix_message_queue():
    librt, name = ctypes.CDLL("librt.so.1"), b"/chainbench-%d" % os.getpid()
    queue = librt.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None)
    librt.mq_unlink(name)
    later(lambda: librt.mq_send(queue, b"x", 1, 0))
    librt.mq_receive(queue, bytes(8192), 8192, None)


def unix_socket():
    one, other = socket.socketpair()
    later(lambda: one.send(b"x"))
    os.read(other.fileno(), 1)


def tcp():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    later(lambda: accepted.send(b"x"))
    os.read(client.fileno(), 1)


def pipe():
    out, into = os.pipe()
    later(lambda: os.write(into, b"x"))
    os.read(out, 1)


def poll():
    out, into = os.pipe()
    later(lambda: os.write(into, b"x"))
    select.select([out], [], [])


def flock():
    one, other = (os.open(".", os.O_RDONLY) for _ in range(2))
    fcntl.flock(one, fcntl.LOCK_EX)
    later(lambda: os.close(one))
    fcntl.flock(other, fcntl.LOCK_EX)


def wait():
    subprocess.run(["sleep", str(WAIT_S)], check=True)


def sigtimedwait():
    signal.sigtimedwait([signal.SIGUSR1], WAIT_S)


def membarrier():
    libc.syscall(MEMBARRIER, MEMBARRIER_GLOBAL, 0, 0)
