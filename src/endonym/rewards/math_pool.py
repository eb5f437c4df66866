"""A few warm processes that compare expressions, each of which can be killed.

    verdicts([(gold, answer), ...]) -> ["equal" | "different" | "unparsed" | "timeout" | "failed", ...]

math-verify is safe only in the main thread of a process that may die: on 9^9^9^9 it computes for
seconds or for ever, and its own time limit needs SIGALRM. So it runs in rewards/math_worker.py, started
once a worker and kept; any thread here may ask. There a comparison that uses up its CPU time dies
("timeout"), and one that crashes has read nonsense ("unparsed").

The limit is on CPU time, so a verdict does not depend on how busy the machine is. The wall clock is a
backstop only: a worker that neither answered nor used its CPU time for so long was not allowed to
work. That, or a process that will not start, is "failed": not the answer's fault.

No worker outlives this process: its stdin ends with it, and a comparison under way ends with its CPU
time. After a fork the child starts workers of its own.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import LifoQueue
from selectors import EVENT_READ, DefaultSelector

WORKER = Path(__file__).with_name("math_worker.py")
CPU_SECONDS = 2.0
PATIENCE = 30  # times the CPU limit, on the wall clock
WORKERS = 2


class Worker:
    """One process of rewards/math_worker.py. OSError where it does not start."""

    def __init__(self, cpu_seconds: float):
        self.cpu_seconds = cpu_seconds
        # -P: the worker's folder, which has a math.py, is not searched for modules.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at a terminal is the parent's to handle
            bufsize=0,
        )
        self.rest = b""
        if self._line(PATIENCE * max(cpu_seconds, 2.0)) != "ready":
            self.kill()
            raise OSError("a worker that compares expressions did not start")

    def ask(self, gold: str, answer: str) -> str:
        """The verdict; "failed" where it gives none: then it is of no more use."""
        pair = json.dumps({"gold": gold, "answer": answer}).encode() + b"\n"
        try:
            self.process.stdin.write(pair)
        except OSError:  # it was killed from outside while it waited
            return "failed"
        return self._line(PATIENCE * self.cpu_seconds) or "failed"

    def _line(self, seconds: float) -> str | None:
        """The next line; "" at the end of the stream, None where nothing came in time."""
        with DefaultSelector() as selector:
            selector.register(self.process.stdout, EVENT_READ)
            while b"\n" not in self.rest:
                if not selector.select(seconds):
                    return None
                piece = os.read(self.process.stdout.fileno(), 4096)
                if not piece:
                    return ""
                self.rest += piece
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()

    def end(self) -> None:
        """Lets an idle worker end by itself, so that its time is accounted for."""
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """Ends the process and its child, which share a session."""
        if self.process.poll() != 0:  # at 0 it has ended by itself, after its child
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Pool:
    """At most `size` workers, started as they are needed. For any number of threads."""

    def __init__(self, size: int = WORKERS, cpu_seconds: float = CPU_SECONDS):
        self.size, self.cpu_seconds = size, cpu_seconds
        self.made: list[Worker] = []
        self.idle: LifoQueue[Worker | None] = LifoQueue()  # None: a place without a process
        for _ in range(size):
            self.idle.put(None)
        self.threads = ThreadPoolExecutor(size, thread_name_prefix="math")

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """One verdict a pair, in order; see the head of this file."""
        return list(self.threads.map(self._verdict, pairs))

    def _verdict(self, pair: tuple[str, str]) -> str:
        worker = self.idle.get()
        try:
            for _ in range(2):  # a worker that was killed while idle says nothing about the answer
                if worker is None:
                    worker = Worker(self.cpu_seconds)
                    self.made.append(worker)
                word = worker.ask(*pair)
                if word != "failed":
                    return word
                worker.kill()
                worker = None
            return "failed"
        except OSError:  # no process could be started
            return "failed"
        finally:
            self.idle.put(worker)

    def close(self) -> None:
        """Ends the workers, after the comparisons under way."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        while not self.idle.empty():
            worker = self.idle.get()
            if worker is not None:
                worker.end()


_LOCK = threading.Lock()
_POOL: list[Pool] = []


def verdicts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Pool.verdicts of this process's own pool, which is made at the first call."""
    if not pairs:
        return []
    with _LOCK:
        if not _POOL:
            _POOL.append(Pool())
    return _POOL[0].verdicts(pairs)


def _close() -> None:
    while _POOL:
        _POOL.pop().close()


def _forget() -> None:
    """In a forked child: the parent's workers are not ours to ask or to end, and must not be kept alive
    by our copies of their pipes. No lock is taken: whoever held one stayed behind in the parent."""
    global _LOCK
    _LOCK = threading.Lock()
    for pool in _POOL:
        for worker in pool.made:
            worker.process.stdin.close()
            worker.process.stdout.close()
    _POOL.clear()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
