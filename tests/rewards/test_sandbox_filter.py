"""The system call filter, run by a small interpreter of classic BPF: no bubblewrap needed."""

import re
import struct
from pathlib import Path

import pytest

from endonym.core.errors import MachineError
from endonym.rewards.seccomp import (
    ALLOW,
    AUDIT_ARCH,
    ENOSYS,
    EPERM,
    ERRNO,
    KILL,
    LOOKED_INTO,
    REFUSED,
    assemble,
    filter_bytes,
)

REFUSE, ABSENT = ERRNO | EPERM, ERRNO | ENOSYS
HARMLESS = {"read": (0, 63), "write": (1, 64), "openat": (257, 56), "execve": (59, 221)}
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


def decide(code: bytes, number: int, arguments=(), architecture: int = AUDIT_ARCH["x86_64"]) -> int:
    """What the kernel would do with a call: the filter executed over struct seccomp_data."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at, word = 0, 0
    while True:
        op, yes, no, k = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        if op == 0x20:
            (word,) = struct.unpack_from("=I", data, k)
        elif op == 0x06:
            return k
        else:
            holds = {0x15: word == k, 0x35: word >= k, 0x45: bool(word & k)}[op]
            at += yes if holds else no


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_every_call_is_judged(machine):
    own = list(AUDIT_ARCH).index(machine)
    code, arch = filter_bytes(machine), AUDIT_ARCH[machine]
    numbers = {name: each[own] for name, each in (REFUSED | LOOKED_INTO | HARMLESS).items()}

    def judge(name, *arguments):
        return decide(code, numbers[name], arguments, arch)

    for name in REFUSED:
        if numbers[name] is not None:
            assert judge(name) == REFUSE, name
    for name in HARMLESS:
        assert judge(name) == ALLOW, name
    assert judge("socket", 1) == judge("socketpair", 1) == ALLOW  # AF_UNIX
    assert judge("socket", 0) == REFUSE  # AF_UNSPEC
    for family in (2, 10, 16, 17, 38, 40):  # INET, INET6, NETLINK, PACKET, ALG, VSOCK
        assert judge("socket", family) == judge("socketpair", family) == REFUSE
        # The kernel reads an int: what stands in the upper half must not hide the family.
        assert judge("socket", (1 << 32) | family) == REFUSE
    assert judge("clone", 17) == judge("clone", 0x3D0F00) == ALLOW  # a fork, a thread
    for bit in (0x20000, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30):
        assert judge("clone", 17 | bit) == REFUSE
    assert judge("clone3") == ABSENT
    assert judge("ioctl", 0, 0x5401) == ALLOW  # TCGETS
    assert judge("ioctl", 0, 0x5412) == judge("ioctl", 0, 0x541C) == REFUSE
    assert decide(code, numbers["read"], (), 0x40000003) == KILL  # 32-bit numbering
    if machine == "x86_64":
        assert decide(code, 0x40000000 | numbers["read"], (), arch) == KILL  # x32


@pytest.mark.parametrize("machine", AUDIT_ARCH)
def test_numbers_are_the_kernels(machine):
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    own = list(AUDIT_ARCH).index(machine)
    checked = 0
    for name, numbers in (REFUSED | LOOKED_INTO).items():
        if name in known:
            assert numbers[own] == int(known[name]), name
            checked += 1
    assert checked > 50


def test_the_assembler_resolves_labels():
    code = assemble([(0x20, 0), (0x15, 7, "end", None), (0x06, 1), ("end",), (0x06, 2)])
    assert code == struct.pack(
        "=" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 1, 0, 7, 6, 0, 0, 1, 6, 0, 0, 2
    )
    assert decide(code, 7) == 2 and decide(code, 8) == 1
    with pytest.raises(AssertionError, match="jumps"):
        assemble([(0x15, 7, "end", None), *[(0x06, 1)] * 256, ("end",), (0x06, 2)])
    with pytest.raises(AssertionError, match="jumps"):  # BPF knows no way back
        assemble([("start",), (0x20, 0), (0x15, 7, "start", None)])


def test_an_unknown_processor_is_an_error():
    with pytest.raises(MachineError, match="riscv64"):
        filter_bytes("riscv64")
