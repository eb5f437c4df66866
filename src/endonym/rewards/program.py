"""One program on its way: fed, read, watched, ended and cleared away, and what came of it.

Two processes are ours to know: the outer one, which became bwrap, and the first of the pid namespace,
which is bwrap's child until bwrap ends, and then ours (we are a subreaper). When that one is gone the
kernel has ended all others in the namespace, and its resource usage holds those that were waited for.
"""

import json
import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from subprocess import Popen
from typing import IO, Literal

from endonym.rewards import watch

LOOK_MS = 20  # between two looks at what the program has used
BEGIN_SECONDS = (
    60.0  # for everything to stand before the program; beyond it the machine is at fault
)
END_SECONDS = 20.0  # for a killed program to be gone


class Infrastructure(Exception):
    """The sandbox failed, so there is no verdict: never to be taken for a bad program."""


@dataclass(frozen=True)
class Run:
    """What a program did. Bytes as they came, cut at the sandbox's `output`."""

    stdout: bytes
    stderr: bytes
    status: Literal["ok", "error", "timeout", "memory", "killed"]
    """error: it ended with another code than 0; memory: over its limit, or by MemoryError;
    killed: by a signal, or because it wrote too much or multiplied past every limit."""
    seconds: float
    """CPU time of the program and its children; what starting it took is not in it."""
    memory: int
    """The most bytes seen resident: of one process, or of all at one look."""


class Program:
    """One program on its way: its processes, and our ends of the pipes to them."""

    def __init__(
        self,
        stack: ExitStack,
        process: Popen,
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
        status: IO[bytes],
        mark: IO[bytes],
    ):
        self.stack, self.process, self.stdin = stack, process, stdin
        self.reads = {"stdout": stdout, "stderr": stderr, "status": status, "mark": mark}
        self.got = {name: bytearray() for name in self.reads}
        self.init: int | None = None  # the first process of the pid namespace, by number and by fd
        self.init_fd = -1
        self.outer_fd = self._pidfd(process.pid)
        self.used = watch.Use(0.0, 0)
        self.peak = 0

    def _pidfd(self, pid: int) -> int:
        descriptor = os.pidfd_open(pid)
        self.stack.callback(os.close, descriptor)
        return descriptor

    def follow(
        self,
        stdin: bytes,
        cpu_seconds: float,
        memory: int,
        processes: int,
        output: int,
        idle: float,
    ) -> Run:
        """Feeds and watches until the end, then clears away; Infrastructure if it never began."""
        reason = None
        try:
            reason = self._watch(memoryview(stdin), cpu_seconds, memory, processes, output, idle)
        finally:
            if reason != "ended":
                self.kill()
            total, largest = self._reap()
        for name in ("stdout", "stderr", "status", "mark"):
            self._read(name, output)
        if not self.got["mark"]:
            said = self.got["stderr"][-500:].decode(errors="replace").strip()
            raise Infrastructure(said or f"the program did not begin ({reason})")
        code = self._status("exit-code")
        seconds = max(total - float(self.got["mark"]), self.used.seconds, 0.0)
        stdout, stderr = (bytes(self.got[name][:output]) for name in ("stdout", "stderr"))
        if reason in ("timeout", "memory") or seconds > cpu_seconds:
            status = "memory" if reason == "memory" else "timeout"
        elif reason == "too much" or len(self.got["stdout"]) > output:
            status = "killed"
        elif code == 0:
            status = "ok"
        elif stderr.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
            status = "memory"
        else:
            status = "killed" if code is None or code > 128 else "error"
        return Run(stdout, stderr, status, round(seconds, 4), max(self.peak, largest))

    def _watch(
        self,
        stdin: memoryview,
        cpu_seconds: float,
        memory: int,
        processes: int,
        output: int,
        idle: float,
    ) -> str:
        """Why it ended: "ended" by itself, "timeout", "memory", "too much" or "not begun"."""
        poller, names = select.poll(), {}
        for name, end in self.reads.items():
            poller.register(end, select.POLLIN)
            names[end.fileno()] = name
        poller.register(self.stdin, select.POLLOUT)
        poller.register(self.outer_fd, select.POLLIN)
        begun = time.monotonic()
        started = moved = looked = None
        while True:
            for descriptor, _ in poller.poll(LOOK_MS):
                if descriptor == self.outer_fd:
                    return "ended"
                if descriptor in names:
                    name = names[descriptor]
                    if self._read(name, output):
                        poller.unregister(descriptor)
                        del names[descriptor]
                    if name in ("stdout", "stderr") and len(self.got[name]) > output:
                        return "too much"
                else:
                    stdin = self._write(stdin)
                    if not stdin:
                        poller.unregister(descriptor)
                        self.stdin.close()
            now = time.monotonic()
            if self.init is None and (pid := self._status("child-pid")):
                with suppress(ProcessLookupError):  # gone already: the outer one is about to end
                    self.init_fd, self.init = self._pidfd(pid), pid
            if started is None:
                if not self.got["mark"]:
                    if now - begun > BEGIN_SECONDS:
                        return "not begun"
                    continue
                started = moved = looked = now
            if now - looked < LOOK_MS / 1000 or self.init is None:
                continue
            looked = now
            living = watch.tree(self.init, processes + 2)
            if len(living) > processes + 2:  # the limit inside holds no more than `processes`
                return "too much"
            seen = watch.use(living, memory)
            self.peak = max(self.peak, seen.memory)
            before = self.used.seconds
            # What has ended without being waited for is lost from the sum: it never goes down.
            own = max(before, seen.seconds - float(self.got["mark"]))
            self.used = watch.Use(own, seen.memory)
            if own > before:
                moved = now
            if seen.memory > memory:
                return "memory"
            if own > cpu_seconds or now - moved > idle or now - started > 10 * cpu_seconds + 10:
                return "timeout"

    def _read(self, name: str, output: int) -> bool:
        """Takes what a pipe holds, up to a little over the limit; whether it has been closed."""
        while len(self.got[name]) <= output:
            try:
                data = os.read(self.reads[name].fileno(), 1 << 16)
            except BlockingIOError:
                return False
            if not data:
                return True
            self.got[name] += data
        return False

    def _write(self, data: memoryview) -> memoryview:
        """What is left to be written; nothing where the program has closed its standard input."""
        try:
            return data[os.write(self.stdin.fileno(), data[: 1 << 16]) :] if data else data
        except BlockingIOError:
            return data
        except BrokenPipeError:
            return data[:0]

    def _status(self, key: str) -> int | None:
        """A figure that bwrap has told so far: one JSON object a line."""
        for line in self.got["status"].splitlines():
            with suppress(ValueError):
                if key in (told := json.loads(line)):
                    return int(told[key])
        return None

    def kill(self) -> None:
        """Ends the pid namespace by its init process, and what may still be preparing it."""
        with suppress(ProcessLookupError):
            if self.init is not None:
                signal.pidfd_send_signal(self.init_fd, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _reap(self) -> tuple[float, int]:
        """CPU seconds and the largest resident size of all that ran in the namespace, now gone."""
        seconds, largest = 0.0, 0
        for pid, descriptor in ((self.process.pid, self.outer_fd), (self.init, self.init_fd)):
            if pid is None:
                continue
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            if not ended.poll(END_SECONDS * 1000):
                raise Infrastructure(f"process {pid} of the sandbox did not end")
            try:
                _, code, used = os.wait4(pid, 0)
            except ChildProcessError:  # its parent has waited for it
                continue
            if pid == self.process.pid:
                self.process.returncode = code
            else:
                seconds, largest = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        with suppress(ChildProcessError):  # helpers of an outer command that was killed
            while os.waitpid(-self.process.pid, os.WNOHANG)[0]:
                pass
        return seconds, largest
