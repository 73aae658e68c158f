"""Takes from the decoder's process what it never needs: network, other programs and processes, writing files.

A decoder that a malicious file has taken over has the rights of its user; the kernel then still refuses it all
that would reach beyond its own memory and its answer. It may read files. Where the kernel or the machine offers
no such filter nothing is done, which `enter` says. This module refuses to know what the process does.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; the numbers from arch/x86/entry/syscalls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_NO_NEW_PRIVILEGES = 38  # prctl's
_SECCOMP, _SET_FILTER, _OF_ALL_THREADS = 317, 1, 1  # the call, its operation, its flag
_X86_64 = 0xC000_003E
_OLDER_CALLS = 0x4000_0000  # the x32 way to call, which numbers calls anew
_ALLOW, _REFUSE, _ABSENT, _KILL = 0x7FFF_0000, 0x0005_0001, 0x0005_0026, 0x8000_0000
_NUMBER, _MACHINE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32  # places in what a filter sees
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_THREAD = 0x10000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_REFUSED = (
    *(41, 42, 43, 49, 50, 53, 288),  # socket, connect, accept, bind, listen, socketpair, accept4
    *(57, 58, 59, 322),  # fork, vfork, execve, execveat
    *(62, 129, 200, 297, 424, 434, 438),  # kill, tkill and their kin; by descriptors of processes
    *(101, 310, 311, 440),  # ptrace, process_vm_readv, process_vm_writev, process_madvise
    *(141, 144, 203, 251, 256, 279, 314),  # priorities, processors and pages of other processes
    *(76, 82, 83, 84, 85, 86, 87, 88, 90, 92, 94, 133),  # truncate, rename, mkdir ... mknod
    *(258, 259, 260, 263, 264, 265, 266, 268, 316),  # the same from a directory on
    *(161, 165, 166, 272, 308),  # chroot, mount, umount2, unshare, setns
    *(248, 249, 250, 298, 321, 323, 425),  # keys, perf_event_open, bpf, userfaultfd, io_uring_setup
)
_CLONE, _CLONE3, _OPEN, _OPENAT, _OPENAT2, _PRLIMIT, _TGKILL = 56, 435, 2, 257, 437, 302, 234

Instruction = tuple[int, int, int, int]
"""Code, places to jump where it is true and where it is not, operand."""


def enter() -> bool:
    """Confines this process and all its threads for the rest of its life; it cannot be undone.

    Returns:
        Whether it is confined: False where this is no Linux on x86-64, or its kernel refuses.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    system = ctypes.CDLL(None, use_errno=True)
    program = _program(os.getpid())
    body = b"".join(struct.pack("HBBI", *step) for step in program)
    filtered = struct.pack("HxxxxxxP", len(program), ctypes.addressof(kept := _kept(body)))
    first = system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    second = system.syscall(_SECCOMP, _SET_FILTER, _OF_ALL_THREADS, ctypes.c_char_p(filtered))
    del kept
    return bool(first == 0 and second == 0)


def _kept(body: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(body, len(body))


def _program(own_id: int) -> list[Instruction]:
    steps = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _OLDER_CALLS),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in _REFUSED:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for number in (
        _CLONE3,
        _OPENAT2,
    ):  # their arguments cannot be seen; who calls them tries the older ones
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ABSENT)]
    steps += _unless(_CLONE, _FIRST, _ANY_BIT, _THREAD)
    steps += _unless(_PRLIMIT, _FIRST, _EQUAL, 0)
    steps += _unless(_TGKILL, _FIRST, _EQUAL, own_id)
    steps += _where(_OPEN, _SECOND) + _where(_OPENAT, _THIRD)
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _unless(number: int, argument: int, test: int, operand: int) -> list[Instruction]:
    """Refuses a call unless its argument passes a test."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, argument),
        (test, 1, 0, operand),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _where(number: int, argument: int) -> list[Instruction]:
    """Refuses to open a file to write to it."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, argument),
        (_ANY_BIT, 0, 1, _WRITING),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
