"""The sandbox: how programs end, what they share, and what it says when it cannot hold them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.sandbox import living_children

from endonym.core.errors import MachineError, RecipeError
from endonym.rewards import bubblewrap, program, watch
from endonym.rewards.sandbox import Infrastructure, MiB, Sandbox


def test_nothing_stays(sandbox):
    before = living_children()
    sandbox.run("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n")
    assert living_children() == before  # neither running nor waiting to be reaped
    here = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    commands = [file.read_bytes() for file in here if file.exists()]
    assert not any(b"/program.py" in command and b"-P\0-B" in command for command in commands)


def test_a_forked_worker_clears_away_too(sandbox):
    """Being a subreaper is not inherited: what a worker runs must not be left to its parent."""
    before = living_children()
    read, write = os.pipe()
    worker = os.fork()
    if worker == 0:
        done = sandbox.run("sum(range(10**6))")
        os.write(write, b"%d %d" % (done.seconds > 0.005, living_children()))
        os._exit(0)
    os.close(write)
    os.waitpid(worker, 0)
    with open(read, "rb") as told:
        assert told.read() == b"1 0"
    assert living_children() == before


@pytest.mark.parametrize(
    "source, status",
    [
        ("print('x')", "ok"),
        ("raise SystemExit(3)", "error"),
        ("while True: pass", "timeout"),
        ("import os\nos.fork()\nwhile True: pass", "timeout"),
        ("x = bytearray(1 << 40)", "memory"),
        ("import os; os.abort()", "killed"),
        ("while True: print('x' * 10**6)", "killed"),
    ],
)
def test_how_a_program_ends(sandbox, source, status):
    assert sandbox.run(source, cpu_seconds=0.3).status == status


def test_a_program_that_does_nothing_is_not_waited_for(sandbox):
    assert sandbox.run("import time; time.sleep(20)", cpu_seconds=50).status == "timeout"


def test_time_used_between_two_looks_counts(sandbox, monkeypatch):
    monkeypatch.setattr(program, "LOOK_MS", 10_000)
    source = "import time\nwhile time.process_time() < 0.3:\n    pass\n"
    assert sandbox.run(source, cpu_seconds=0.1).status == "timeout"
    assert sandbox.run(source, cpu_seconds=0.9).status == "ok"


def test_processes_share_one_limit_of_memory(sandbox, monkeypatch):
    monkeypatch.setattr(
        sandbox, "idle", 60.0
    )  # the programs wait for a look; a busy machine for longer
    source = (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        break\n"
        "x = b'x' * (60 << 20)\ntime.sleep(0.5)\n"
    )
    assert sandbox.run(source, memory=128 * MiB).status == "memory"
    # What clearing 240 MiB costs is the machine's business, not this test's.
    assert sandbox.run(source, memory=512 * MiB, cpu_seconds=30).status == "ok"
    # Pages shared after a fork count once.
    shared = "import os, time\nx = b'x' * (60 << 20)\nfor _ in range(2):\n    os.fork()\ntime.sleep(0.5)\n"
    assert sandbox.run(shared, memory=128 * MiB, cpu_seconds=30).status == "ok"


def test_bytes_in_and_out(sandbox):
    big = os.urandom(3 * MiB)
    done = sandbox.run(
        "import hashlib, sys\nprint(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())\n"
        "print('สวัสดี', open('given.txt').read(), file=sys.stderr)",
        big,
        files={"given.txt": "한글".encode()},
    )
    import hashlib

    assert done.stdout.decode().strip() == hashlib.sha256(big).hexdigest()
    assert done.stderr.decode() == "สวัสดี 한글\n"
    assert sandbox.run("pass", big).status == "ok"  # nobody reads what is written
    hashes = "print(hash('x'))"
    assert sandbox.run(hashes).stdout == sandbox.run(hashes).stdout
    assert sandbox.run(hashes).stdout != sandbox.run(hashes, hash_seed=1).stdout
    assert sandbox.run("exit()").status == "ok"  # what Python's site adds is there
    installed = "import sys\nfor path in sys.path:\n    print(path)\nimport pytest"
    assert b"No module named 'pytest'" in sandbox.run(installed).stderr


def test_time_is_that_of_the_cpu_and_not_of_the_clock(sandbox):
    """Eight at once on four workers beside busy loops: each is judged as it would be alone."""
    work = (
        "import time\nend = time.process_time() + {}\nwhile time.process_time() < end:\n    pass\n"
        "print('done')\n"
    )
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        found = sandbox.map(
            lambda seconds: sandbox.run(work.format(seconds), cpu_seconds=0.4), [0.1, 0.6] * 4
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert [done.status for done in found] == ["ok", "timeout"] * 4
    assert all(0.1 <= done.seconds < 0.4 for done in found[::2])


def test_a_fork_bomb_does_not_starve_its_neighbours(sandbox):
    bomb = (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    )
    honest = (
        "import subprocess\nprint(subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout)\n"
    )
    found = sandbox.map(lambda source: sandbox.run(source, cpu_seconds=0.3), [bomb, honest] * 4)
    assert [done.stdout for done in found[1::2]] == [b"b'x\\n'\n"] * 4
    assert all(done.status in ("timeout", "memory") for done in found[::2])


def test_processes_past_the_limit_are_ended_from_outside_too(sandbox, monkeypatch):
    whole = bubblewrap.command

    def loose(*given, **named):
        line = whole(*given, **named)
        return ["--nproc=60" if word.startswith("--nproc=") else word for word in line]

    source = "import os, time\nfor _ in range({}):\n    if os.fork() == 0:\n        break\ntime.sleep(0.5)\n"
    monkeypatch.setattr(bubblewrap, "command", loose)
    monkeypatch.setattr(sandbox, "idle", 60.0)
    assert sandbox.run(source.format(40)).status == "killed"
    assert sandbox.run(source.format(10)).status == "ok"


def test_processes_are_limited_twice(sandbox, monkeypatch):
    """With no limit inside and nobody who watches there is still the one set before bwrap.

    The program stops by itself at 150: nothing here may ever be a bomb.
    """
    whole = bubblewrap.command

    def loose(*given, **named):
        return [word for word in whole(*given, **named) if word != "--nproc=16"]

    source = (
        "import os, time\ncount = 0\ntry:\n    for _ in range(150):\n        if os.fork() == 0:\n"
        "            time.sleep(2)\n            os._exit(0)\n        count += 1\n"
        "except OSError:\n    pass\nprint(count)\n"
    )
    assert int(sandbox.run(source).stdout) < 16
    monkeypatch.setattr(bubblewrap, "command", loose)
    monkeypatch.setattr(watch, "tree", lambda pid, most: [pid])
    assert 16 <= int(sandbox.run(source).stdout) < bubblewrap.most_processes(16)


def test_what_a_run_may_be_asked(sandbox):
    for wrong in (
        {"cpu_seconds": 0},
        {"memory": MiB},
        {"files": {"../x": b""}},
        {"files": {"x": bytes(9 * MiB)}},
    ):
        with pytest.raises(RecipeError):
            sandbox.run("pass", **wrong)


CANNOT = {
    "write to /": lambda line: drop(line, "--remount-ro", "/"),
    "write to /dev": lambda line: drop(line, "--remount-ro", "/dev"),
    "see an environment": lambda line: drop(line, "--clearenv"),
    "call what the filter refuses": lambda line: drop(line, "--seccomp", None),
    "reach a socket outside": lambda line: put(line, "--share-net"),
    "read a planted file": lambda line: put(line, "--bind", "/tmp", "/tmp"),
    "see processes outside": lambda line: put(line, "--bind", "/proc", "/proc"),
    "see a home folder": lambda line: put(line, "--ro-bind", "/usr", "/home"),
    "read /etc/passwd": lambda line: put(line, "--ro-bind", "/usr/bin/env", "/etc/passwd"),
    "make many processes": lambda line: [
        "--nproc=40" if word.startswith("--nproc=") else word for word in line
    ],
    "make many files": lambda line: put(line, "--tmpfs", "/dev/shm"),
}


def drop(line: list[str], option: str, value: str | None = "") -> list[str]:
    """Without an option and its value; "" where it has none, None where it may be any."""
    at = next(
        n for n, word in enumerate(line) if word == option and value in ("", None, line[n + 1])
    )
    return line[:at] + line[at + (1 if value == "" else 2) :]


def put(line: list[str], *words: str) -> list[str]:
    """With more words just before / and /dev are closed."""
    at = line.index("--remount-ro")
    return [*line[:at], *words, *line[at:]]


@pytest.mark.parametrize("could", CANNOT)
def test_the_canary_sees_every_hole(sandbox, monkeypatch, could):
    whole = bubblewrap.command
    if could == "make many files" and Path("/dev/shm").exists():
        memory = os.sysconf("SC_PHYS_PAGES")
        if memory // 2 <= 1 << 20:
            pytest.skip("a tmpfs without a cap would be small on this machine")
    monkeypatch.setattr(
        bubblewrap, "command", lambda *given, **named: CANNOT[could](whole(*given, **named))
    )
    with pytest.raises(MachineError, match=could):
        Sandbox().check()


def test_a_sandbox_that_fails_is_no_verdict(sandbox, monkeypatch):
    whole, tried = bubblewrap.command, []

    def failing(*given, **named):
        tried.append(1)
        return ["sh", "-c", "echo bwrap: no space left >&2; exit 1"]

    monkeypatch.setattr(bubblewrap, "command", failing)
    with pytest.raises(Infrastructure, match="no space left"):
        sandbox.run("print(1)")
    assert len(tried) == 2
    with pytest.raises(
        MachineError, match=r"(?s)cannot be started here.*no space left.*namespaces"
    ):
        sandbox.check()
    monkeypatch.setattr(bubblewrap, "command", lambda *given, **named: ["/nowhere/bwrap"])
    with pytest.raises(Infrastructure, match="could not be started"):
        sandbox.run("print(1)")

    def at_first(*given, **named):
        tried.append(1)
        return failing() if len(tried) == 1 else whole(*given, **named)

    tried.clear()
    monkeypatch.setattr(bubblewrap, "command", at_first)
    assert sandbox.run("print(1)").stdout == b"1\n"


def test_nothing_runs_without_bubblewrap(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: started.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(
            bubblewrap.shutil, "which", lambda tool, path: None if tool == "bwrap" else "x"
        )
        with pytest.raises(MachineError, match="apt install bubblewrap"):
            Sandbox.open()
    with monkeypatch.context() as patch:
        patch.setattr(bubblewrap.platform, "system", lambda: "Darwin")
        with pytest.raises(MachineError, match="Linux"):
            Sandbox.open()
    assert not started


def test_an_old_bubblewrap_is_refused(monkeypatch):
    for said, is_old in (("bubblewrap 0.6.1\n", True), ("", True), ("bubblewrap 0.11.0\n", False)):
        done = subprocess.CompletedProcess([], 0, stdout=said)
        with monkeypatch.context() as patch:
            patch.setattr(bubblewrap.shutil, "which", lambda tool, path: tool)
            patch.setattr(bubblewrap.subprocess, "run", lambda *_, done=done, **__: done)
            if is_old:
                with pytest.raises(MachineError, match="too old"):
                    bubblewrap.require()
            else:
                bubblewrap.require()


def test_it_says_what_guards(sandbox):
    assert "cgroup" in sandbox.guards() or "control groups" in sandbox.guards()


def test_an_ordinary_user_may_open_one(sandbox):
    source, python = Path(bubblewrap.__file__).parents[2], "/usr/bin/python3"
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user")
    if not os.path.exists(python) or subprocess.run([python, "-c", probe]).returncode:
        pytest.skip("the system has no Python 3.11 that another user could run")
    code = (
        "from endonym.rewards.sandbox import Sandbox\n"
        "done = Sandbox.open().run('import os; print(os.getuid())')\n"
        "print(done.status, done.stdout)\n"
    )
    done = subprocess.run(
        [python, "-B", "-c", code],
        env={"PYTHONPATH": str(source), "PATH": bubblewrap.PATH},
        user=12345,
        group=12345,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
    )
    if "PermissionError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot read the source")
    assert done.stdout == "ok b'65534\\n'\n", done.stderr


def test_a_tree_of_processes_is_watched():
    child = (
        "import os, sys, time\npid = os.fork()\nx = bytearray(40 << 20)\nend = time.process_time() + 0.2\n"
        "while time.process_time() < end:\n    pass\nos.write(1, b'%d\\n' % pid)\ntime.sleep(30)\n"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        try:
            lines = {process.stdout.readline(), process.stdout.readline()}
            found = watch.tree(process.pid, 100)
            stopped = watch.tree(process.pid, 0)
            used = watch.use(found, enough=1 << 40)
            proportional = watch.use(found, enough=0)
        finally:
            for pid in watch.tree(process.pid, 100)[::-1]:
                os.kill(pid, 9)
    assert b"0\n" in lines and len(found) == 2
    assert len(stopped) == 1
    assert used.seconds >= 0.35  # of both
    assert used.memory >= 80 << 20
    assert 80 << 20 <= proportional.memory < used.memory  # libraries counted once
    time.sleep(0)
    assert watch.use([process.pid], 0) == watch.Use(0.0, 0)  # gone


def test_the_interpreter_comes_from_where_it_is():
    found = bubblewrap.interpreter()
    assert found.executable.startswith("/usr/" if not found.prefix else "/python/")
    inside = Path(found.executable)
    here = Path(found.prefix) / inside.relative_to("/python") if found.prefix else inside
    assert here.is_file()
    assert json.dumps(found.packages)
