"""Runs a Python program that nobody trusts: it sees nothing, keeps nothing, and ends.

    Sandbox.open().run("print(input())", b"hello") -> Run(stdout=b"hello\\n", status="ok", ...)

What shuts it in is in bubblewrap.py and seccomp.py; program.py feeds, watches and clears away.

Time is judged by the CPU seconds that the program and its children used, from the moment it began:
the verdict does not hang on how busy the machine is, but for what a full cache costs. Beside that
stand two loose backstops for programs that use none: `idle` seconds without any progress, and a wall
limit of ten times the CPU limit and ten seconds.

Three outcomes. The program did well; it did badly (error, timeout, memory, killed); or the sandbox
itself failed, which is no verdict on the program: after one more try that is the exception
Infrastructure. It is known by a mark that Python writes before it reads the program. A program that
is killed after its mark has been judged, whoever killed it: else dying would be a way to be excused.

The process that runs programs becomes a subreaper (prctl(2)): bwrap ends before the init process
of its pid namespace does, which then becomes our child, is waited for, and tells what all used.
"""

import ctypes
import json
import math
import os
import re
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar

from endonym.core.errors import MachineError, RecipeError
from endonym.rewards import bubblewrap, canary, seccomp
from endonym.rewards.functions import Outcome, driver, outcomes
from endonym.rewards.program import LOOK_MS, Infrastructure, Program, Run

T = TypeVar("T")
R = TypeVar("R")
MiB = 1 << 20
PR_SET_CHILD_SUBREAPER = 36
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Sandbox:
    """Runs programs, at most `workers` at a time; all other limits are of one program.

    processes: processes and threads; memory is a limit of each, and of their sum
    disk, inodes: /tmp and /dev/shm together, bytes and files
    output: bytes of standard output, and as many of standard error; more ends the program
    idle: seconds without any CPU time used
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        processes: int = 16,
        disk: int = 16 * MiB,
        inodes: int = 1024,
        output: int = MiB,
        idle: float = 5.0,
    ):
        self.workers = workers or max(1, len(os.sched_getaffinity(0)))
        self.processes, self.disk, self.inodes = processes, disk, inodes
        self.output, self.idle = output, idle
        self._slots = threading.BoundedSemaphore(self.workers)
        self._python = bubblewrap.interpreter()
        self._filter = seccomp.filter_bytes(os.uname().machine)

    @classmethod
    def open(cls, **limits) -> "Sandbox":
        """A sandbox that has been seen to hold here; MachineError, which says why, if it does not."""
        bubblewrap.require()
        sandbox = cls(**limits)
        sandbox.check()
        return sandbox

    def guards(self) -> str:
        """What bounds the memory and time of a program's processes together, in one line."""
        found = bubblewrap.cgroup()
        group = "no control groups" if found == "none" else f"cgroup {found} present, not needed"
        if not Path(f"/proc/self/task/{threading.get_native_id()}/children").exists():
            return f"{group}; the kernel lists no children: limits bind each process alone"
        return f"{group}; limits on each process, their sum watched every {LOOK_MS} ms"

    def run(
        self,
        program: str | bytes,
        stdin: bytes = b"",
        *,
        cpu_seconds: float = 2.0,
        memory: int = 512 * MiB,
        files: dict[str, bytes] | None = None,
        hash_seed: int = 0,
    ) -> Run:
        """What the program did. files lie in its working folder, /tmp; hash_seed: of str hashes."""
        if cpu_seconds <= 0 or memory < 64 * MiB:
            raise RecipeError(
                "a program in the sandbox needs time and memory",
                wanted="more than 0 seconds, at least 64 MiB",
                got=f"{cpu_seconds} seconds, {memory} bytes",
            )
        for name in files or {}:
            if not FILE_NAME.fullmatch(name):
                raise RecipeError("not a name for a file in the sandbox", got=repr(name))
        if sum(map(len, (files or {}).values())) > self.disk // 2:
            raise RecipeError(
                "files for the sandbox would leave a program no room",
                wanted=f"at most {self.disk // 2} bytes",
                got=sum(map(len, files.values())),
                do="hand over less at a time, or open the sandbox with a larger `disk`",
            )
        if isinstance(program, str):
            program = program.encode("utf-8", "surrogatepass")
        with self._slots:
            given = (program, stdin, cpu_seconds, memory, files or {}, hash_seed)
            try:
                return self._once(*given)
            except Infrastructure:
                return self._once(*given)

    def call_many(
        self, source: str | bytes, calls: list[tuple[str, list]], **limits
    ) -> list[Outcome]:
        """What functions of `source` give for arguments that JSON can hold, in one process.

        One outcome a call, in order; see functions.py. limits: those of `run`, for all calls together.
        """
        program, files = driver(source, calls)
        return outcomes(self.run(program, files=files, **limits), len(calls))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """[function(item), ...], `workers` at a time, in threads; the first exception is raised."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(function, items))

    def _once(
        self,
        program: bytes,
        stdin: bytes,
        cpu_seconds: float,
        memory: int,
        files: dict[str, bytes],
        hash_seed: int,
    ) -> Run:
        with ExitStack() as stack:
            try:
                live = self._start(stack, program, cpu_seconds, memory, files, hash_seed)
            except OSError as error:
                raise Infrastructure(f"the sandbox could not be started: {error}") from error
            return live.follow(stdin, cpu_seconds, memory, self.processes, self.output, self.idle)

    def _start(
        self,
        stack: ExitStack,
        program: bytes,
        cpu_seconds: float,
        memory: int,
        files: dict[str, bytes],
        hash_seed: int,
    ) -> Program:
        given: list[int] = []

        def content(data: bytes) -> int:
            file = stack.enter_context(os.fdopen(os.memfd_create("endonym"), "w+b", buffering=0))
            file.write(data)
            file.seek(0)
            given.append(file.fileno())
            return file.fileno()

        def pipe() -> tuple[IO[bytes], IO[bytes]]:
            read, write = os.pipe()
            return (
                stack.enter_context(os.fdopen(read, "rb", buffering=0)),
                stack.enter_context(os.fdopen(write, "wb", buffering=0)),
            )

        stdin, stdout, stderr, status, mark = (pipe() for _ in range(5))
        given += [status[1].fileno(), mark[1].fileno()]
        line = bubblewrap.command(
            self._python,
            bubblewrap.limits_of_process(
                # The kernel counts whole seconds, and what Python took to start: its limit is the
                # next second, so that ours is the one that speaks.
                seconds=math.floor(cpu_seconds) + 1,
                memory=memory,
                processes=self.processes,
                files=64,
                disk=self.disk,
            ),
            processes=self.processes,
            disk=self.disk,
            inodes=self.inodes,
            program=content(program),
            start=content(bubblewrap.START.format(fd=mark[1].fileno()).encode()),
            filter=content(self._filter),
            status=status[1].fileno(),
            files={name: content(data) for name, data in files.items()},
            hash_seed=hash_seed,
        )
        # At every run: a process that was forked from the one that opened us has not inherited it.
        if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise MachineError("this process may not become a subreaper, which the sandbox needs")
        process = subprocess.Popen(
            line,
            stdin=stdin[0],
            stdout=stdout[1],
            stderr=stderr[1],
            pass_fds=given,
            start_new_session=True,
            cwd="/",
            env={"PATH": bubblewrap.PATH},
        )
        for end in (stdin[0], stdout[1], stderr[1], status[1], mark[1]):
            end.close()
        for end in (stdin[1], stdout[0], stderr[0], status[0], mark[0]):
            os.set_blocking(end.fileno(), False)
        return Program(stack, process, stdin[1], stdout[0], stderr[0], status[0], mark[0])

    def check(self) -> None:
        """MachineError unless a program in the sandbox fails at all that it must not be able to do."""
        secret = secrets.token_hex(16)
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
            planted = Path(folder) / "secret"
            planted.write_text(secret)
            Path(folder).chmod(0o755)  # for all to read, so that only the sandbox is in the way
            door.bind(b"\0endonym-" + secret.encode())
            door.listen()
            probe = canary.PROGRAM.format(
                planted=str(planted),
                door="endonym-" + secret,
                parent=os.getpid(),
                processes=self.processes,
            )
            try:
                run = self.run(probe, cpu_seconds=10.0)
            except Infrastructure as error:
                raise MachineError(
                    "the sandbox cannot be started here, and programs are never run without it",
                    got=str(error),
                    do="allow unprivileged user namespaces (sysctl user.max_user_namespaces above 0; "
                    "on Ubuntu also kernel.apparmor_restrict_unprivileged_userns = 0 or a profile "
                    "for bwrap and unshare; in a container --security-opt seccomp=unconfined "
                    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined)",
                ) from error
        try:
            done = json.loads(run.stdout)
        except ValueError:
            raise MachineError(
                "the sandbox was started, but its first program did not run to the end",
                got=f"{run.status}: {run.stderr[-500:].decode(errors='replace')}",
            ) from None
        broken = sorted(name for name, could in done.items() if could is not False)
        if broken or secret.encode() in run.stdout:
            raise MachineError(
                "the sandbox does not hold here, so no program is run in it",
                wanted="a program that can do nothing of the kind",
                got=f"its first program could: {', '.join(broken)}",
            )
