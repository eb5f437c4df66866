"""Which system calls a program in the sandbox may make, as a classic BPF program for bubblewrap.

    filter_bytes("x86_64") -> struct sock_filter[], 8 bytes an instruction: what --seccomp FD reads

Everything is allowed but a list, because Python and the C library it stands on use different calls
from version to version. On the list is what widens the kernel's surface (namespaces, mounts, ptrace,
bpf, io_uring, keys), what takes memory that no limit counts (memfd, System V shared memory, message
queues), what changes the machine (clocks, modules, names) and every socket but AF_UNIX. A call on the
list fails with EPERM; clone3, whose flags lie behind a pointer that a filter cannot follow, with
ENOSYS, upon which the C library falls back to clone. A call made in another architecture's
numbering (32-bit or x32 on x86_64) ends the program.

Numbers are from Linux's tables (asm/unistd_64.h and asm-generic/unistd.h); the form of the filter is
Documentation/userspace-api/seccomp_filter.rst.
"""

import struct

from endonym.core.errors import MachineError

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # set in the number of every call of the x32 ABI

# name: (number on x86_64, number on aarch64); None where the architecture has no such call
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # looking into and steering other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    # the machine
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "personality": (135, 92),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    # wide doors into the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "seccomp": (317, 277),
    # memory that no limit of a process counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "set_mempolicy": (238, 237),
}
LOOKED_INTO = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
}
"""Calls that are judged by an argument."""

AF_UNIX = 1
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; clone knows no NEWTIME
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # type into a terminal that others read

EPERM, ENOSYS = 1, 38
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

# Instructions of classic BPF: load a word at k; compare and jump; end with k.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Byte offsets in struct seccomp_data. Arguments are 64 bits; their low halves are what the kernel
# itself reads of an int, and both architectures are little-endian.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16


def assemble(lines: list[tuple]) -> bytes:
    """Machine code of lines ("label",) | (op, k) | (op, k, label if true, label if false).

    A label None is the next line. Jumps go forward, by at most 255 instructions, as BPF has it.
    """
    places: dict[str, int] = {}
    count = 0
    for line in lines:
        if isinstance(line[0], str):
            places[line[0]] = count
        else:
            count += 1
    code = b""
    for line in lines:
        if isinstance(line[0], str):
            continue
        op, k, *jumps = line
        here = len(code) // 8 + 1
        far = [0 if label is None else places[label] - here for label in jumps] or [0, 0]
        assert all(0 <= jump <= 255 for jump in far), f"{line} jumps {far}"
        code += struct.pack("=HBBI", op, *far, k)
    return code


def filter_bytes(architecture: str) -> bytes:
    """The filter of one architecture, as platform.machine() names it."""
    if architecture not in AUDIT_ARCH:
        raise MachineError(
            "the sandbox's system call filter knows no numbers for this processor",
            wanted=" or ".join(AUDIT_ARCH),
            got=architecture,
        )
    own = list(AUDIT_ARCH).index(architecture)
    call = {name: numbers[own] for name, numbers in LOOKED_INTO.items()}
    lines: list[tuple] = [
        (LOAD, ARCHITECTURE),
        (EQUAL, AUDIT_ARCH[architecture], None, "kill"),
        (LOAD, NUMBER),
    ]
    if architecture == "x86_64":
        lines.append((AT_LEAST, X32, "kill", None))
    lines += [
        (EQUAL, call["socket"], "family", None),
        (EQUAL, call["socketpair"], "family", None),
        (EQUAL, call["clone"], "flags", None),
        (EQUAL, call["ioctl"], "request", None),
        (EQUAL, call["clone3"], "absent", None),
        *[
            (EQUAL, numbers[own], "refuse", None)
            for numbers in REFUSED.values()
            if numbers[own] is not None
        ],
        (RETURN, ALLOW),
        ("family",),
        (LOAD, ARGUMENTS),
        (EQUAL, AF_UNIX, "allow", "refuse"),
        ("flags",),
        (LOAD, ARGUMENTS),
        (ANY_BIT, NEW_NAMESPACES, "refuse", "allow"),
        ("request",),
        (LOAD, ARGUMENTS + 8),
        (EQUAL, TIOCSTI, "refuse", None),
        (EQUAL, TIOCLINUX, "refuse", "allow"),
        ("allow",),
        (RETURN, ALLOW),
        ("refuse",),
        (RETURN, ERRNO | EPERM),
        ("absent",),
        (RETURN, ERRNO | ENOSYS),
        ("kill",),
        (RETURN, KILL),
    ]
    return assemble(lines)
