"""What a job's process gives up before it runs anybody's code. Linux; what cannot be given up is an error.

- Resource limits: memory, processor time, file size, open files (setrlimit(2)).
- Landlock (https://docs.kernel.org/userspace-api/landlock.html): no file but those of the program may be read, only the
  job's own folder may be written, no program may be executed, no other process may be signalled or looked into.
- Seccomp (https://docs.kernel.org/userspace-api/seccomp_filter.html): no further process, no socket, no ptrace, and
  nothing by which these come back; nothing that changes another process of this user, or, what Landlock leaves to
  their owner, modes, owners, times and attributes of files. Threads are allowed: RLIMIT_AS bounds them by their stacks.
- Capabilities: none, so that root cannot raise the limits again.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 22, 38, 4
_SIGKILL = 9

# The same on every architecture since they came after Linux 5.1's common table.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION, _LANDLOCK_PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
# By ABI: what it knows to forbid. 1: bits 0 to 12; 2: refer; 3: truncate; 5: ioctl on devices.
_FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 3  # bind and connect, from ABI 4
_SCOPES = 3  # abstract unix sockets and signals, from ABI 6
# Rights that a rule on a file, not a folder, may carry.
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | (1 << 14) | (1 << 15)

# What Python and numerical libraries read beside their own folders.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf"),
    *("/dev/null", "/dev/zero", "/dev/urandom", "/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo"),
)

_CAPABILITY_VERSION = 0x20080522


class SandboxUnavailable(Exception):
    """This system cannot shut a process in."""


@dataclass(frozen=True)
class Limits:
    """What a job's process may use: bytes of address space, seconds of processor time, bytes of a file."""

    memory: int
    seconds: int
    file_size: int


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the one that started it is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        os.kill(os.getpid(), _SIGKILL)


def limit(limits: Limits) -> None:
    """Sets the resource limits, for good."""
    wanted = {
        resource.RLIMIT_AS: limits.memory,
        resource.RLIMIT_CPU: limits.seconds,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for name, value in wanted.items():
        _, hard = resource.getrlimit(name)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bounded, bounded))


def enter(folder: Path, hidden: Iterable[Path]) -> None:
    """Shuts this process in, for good: it may write in `folder`, and read its program but for what is `hidden`.

    Raises SandboxUnavailable.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable("it is not Linux")
    # Others of the same user look into a process only while it is dumpable.
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _drop_capabilities()
    _checked(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _landlock(folder, [path.resolve() for path in hidden])
    _seccomp()


def _drop_capabilities() -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _checked(_LIBC.capset(header, bytes(24)), "capset")


def _landlock(folder: Path, hidden: list[Path]) -> None:
    abi = _LIBC.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if abi < 1:
        raise SandboxUnavailable("its kernel has no Landlock")
    rights = _FS_RIGHTS[min(abi, 5)]
    attributes = struct.pack("QQQ", rights, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(_LIBC.syscall(_LANDLOCK_CREATE, attributes, size, 0), "landlock")
    try:
        _allow(ruleset, folder, rights & ~_EXECUTE)
        own = Path(f"/proc/{os.getpid()}")  # libraries look for each other in `maps`; its environment is empty
        for root in (*_program(), *map(Path, _SYSTEM), own):
            _allow(ruleset, root, _READ_DIR)
            for path in _without(root, hidden):
                _allow(ruleset, path, _READ_FILE | _READ_DIR)
        _checked(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)


def _program() -> Iterator[Path]:
    """The folders that modules come from."""
    for name in dict.fromkeys([sys.prefix, sys.base_prefix, *sys.path]):
        if name:
            yield Path(name)


def _without(root: Path, hidden: list[Path]) -> Iterator[Path]:
    """The root; in place of a folder with something hidden in it, what else is in it."""
    resolved = root.resolve()
    if resolved in hidden:
        return
    if not any(path.is_relative_to(resolved) for path in hidden):
        yield root
    elif root.is_dir():
        for child in root.iterdir():
            # A link may lead into what is hidden, from where it would be opened.
            if not child.is_symlink():
                yield from _without(child, hidden)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be allowed
    try:
        rights &= ~0 if path.is_dir() else _OF_FILES
        if rights:
            rule = struct.pack("=Qi", rights, descriptor)
            _checked(_LIBC.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0), "landlock")
    finally:
        os.close(descriptor)


# System calls by architecture: their numbers, and how a filter knows it (include/uapi/linux/audit.h).
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# fmt: off
_REFUSED = {
    "x86_64": {
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "socket": 41, "socketpair": 53, "connect": 42,
        "bind": 49, "kill": 62, "tkill": 200, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
        "pidfd_open": 434, "pidfd_getfd": 438, "pidfd_send_signal": 424, "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "setrlimit": 160, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155,
        "chroot": 161, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248,
        "request_key": 249, "setsid": 112, "setpgid": 109, "init_module": 175, "finit_module": 313,
        "open_by_handle_at": 304, "memfd_create": 319, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240,
        "setpriority": 141, "sched_setscheduler": 144, "move_mount": 429, "open_tree": 428, "fsopen": 430,
        "sched_setaffinity": 203, "sched_setparam": 142, "sched_setattr": 314, "ioprio_set": 251,
        "migrate_pages": 256, "move_pages": 279, "process_madvise": 440, "kcmp": 312, "truncate": 76, "chmod": 90,
        "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
        "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189,
        "fsetxattr": 190, "setxattrat": 463, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
        "removexattrat": 466, "file_setattr": 469, "shmat": 30, "shmctl": 31, "msgsnd": 69, "msgrcv": 70,
        "msgctl": 71, "semop": 65, "semctl": 66, "semtimedop": 220, "mq_unlink": 241,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "socket": 198, "socketpair": 199, "connect": 203, "bind": 200, "kill": 129,
        "tkill": 130, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_open": 434,
        "pidfd_getfd": 438, "pidfd_send_signal": 424, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
        "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "setrlimit": 164, "unshare": 97,
        "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "bpf": 280, "perf_event_open": 241,
        "userfaultfd": 282, "keyctl": 219, "add_key": 217, "request_key": 218, "setsid": 157, "setpgid": 154,
        "init_module": 105, "finit_module": 273, "open_by_handle_at": 265, "memfd_create": 279, "shmget": 194,
        "msgget": 186, "semget": 190, "mq_open": 180, "setpriority": 140, "sched_setscheduler": 119,
        "move_mount": 429, "open_tree": 428, "fsopen": 430, "sched_setaffinity": 122, "sched_setparam": 118,
        "sched_setattr": 274, "ioprio_set": 30, "migrate_pages": 238, "move_pages": 239, "process_madvise": 440,
        "kcmp": 272, "truncate": 45, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54,
        "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "setxattrat": 463, "removexattr": 14,
        "lremovexattr": 15, "fremovexattr": 16, "removexattrat": 466, "file_setattr": 469, "shmat": 196,
        "shmctl": 195, "msgsnd": 189, "msgrcv": 188, "msgctl": 187, "semop": 193, "semctl": 191, "semtimedop": 192,
        "mq_unlink": 181,
    },
}
# fmt: on
# Limits of a process, and signals to a thread: of this process alone, which its libraries ask for.
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_TGKILL = {"x86_64": 234, "aarch64": 131}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3, _CLONE_THREAD = 435, 0x10000
# Of fcntl: to have the kernel send signals to whomever, when a file of this process changes; and leases.
_FCNTL = {"x86_64": 72, "aarch64": 25}
_SETOWN, _SETSIG, _SETOWN_EX, _SETLEASE, _NOTIFY = 8, 10, 15, 1024, 1026
# Of prctl: to outlive whoever made it.
_PRCTL = {"x86_64": 157, "aarch64": 167}
# x86_64 has the same calls a second time, from this number on.
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
# Where a filter finds them in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24


def _seccomp() -> None:
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise SandboxUnavailable(f"system calls of {machine} are not known")
    program = b"".join(struct.pack("HBBI", *step) for step in _filter(machine))
    kept = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    _checked(_LIBC.prctl(_PR_SET_SECCOMP, 2, described, 0, 0), "seccomp")


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """A program of classic BPF: operation, steps to skip if true, if false, operand."""
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        # Its flags lie in memory that a filter cannot see. Without it, libc uses clone.
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for number in sorted(_REFUSED[machine].values()):
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    for number, own in ((_PRLIMIT[machine], 0), (_TGKILL[machine], os.getpid())):
        steps += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_EQUAL, 0, 1, own),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | _EPERM),
        ]
    signals = (_SETOWN, _SETSIG, _SETOWN_EX, _SETLEASE, _NOTIFY)
    for number, argument, orders in (
        (_FCNTL[machine], _SECOND_ARGUMENT, signals),
        (_PRCTL[machine], _FIRST_ARGUMENT, (_PR_SET_PDEATHSIG,)),
    ):
        steps += [(_EQUAL, 0, 2 + 2 * len(orders), number), (_LOAD, 0, 0, argument)]
        for order in orders:
            steps += [(_EQUAL, 0, 1, order), (_RETURN, 0, 0, _ERRNO | _EPERM)]
        steps.append((_RETURN, 0, 0, _ALLOW))
    return [
        *steps,
        (_EQUAL, 0, 3, _CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_HAS_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise SandboxUnavailable(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result
