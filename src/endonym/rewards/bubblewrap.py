"""The command that starts a program cut off from everything: bubblewrap, and what stands round it.

    unshare      a mount namespace in which /mnt is one small tmpfs, its bytes and inodes capped: the
      sh         program's /tmp and /dev/shm are folders of it, so together they cannot outgrow it
      setpriv    as root only: another uid before anything else, so that the limits below bind
      unshare    a user namespace of this run alone (an ordinary user's has the mounts too)
      prlimit    the number of processes in what bwrap makes here: counted in that namespace, not over
                 the user's other processes, and out of reach from inside
      bwrap      own user, pid, net, ipc, uts, cgroup namespaces, none of them to be made anew inside;
                 no capability, no environment, a system call filter; to be seen are /usr and the
                 Python (both read-only), /proc of its own, a bare /dev, the program
      prlimit    limits of one process, set inside: the number of processes set outside would be
                 counted over all sandboxes of one uid, and a fork bomb would starve its neighbours
      python     the interpreter that runs us, its standard library without installed packages

bwrap itself can cap a tmpfs's bytes but not its inodes, and its --dev and its root folder are tmpfs
without a cap: hence the tmpfs made beforehand, and both remounted read-only.

The interpreter may live outside /usr, even in a home folder that other users cannot enter. It is
then seen at /python, and nothing else of that home is there.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from endonym.core.errors import MachineError

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
OLDEST = [0, 8]  # knows --disable-userns
NOBODY = 65534
STAGE = "/mnt"  # covered by our tmpfs in a namespace of its own; nothing on the machine changes

PREPARE = f"""set -e
mount -t tmpfs -o size="$1",nr_inodes="$2",mode=755 endonym {STAGE}
mkdir {STAGE}/empty {STAGE}/python
mkdir -m 1777 {STAGE}/tmp {STAGE}/shm
test -z "$3" || mount --bind "$3" {STAGE}/python
shift 3
exec "$@"
"""

START = """import os, sys, time
os.environ.pop("PYTHONPATH"), sys.path.remove("/start")
os.write({fd}, repr(time.process_time()).encode())
os.close({fd})
"""
"""Runs as sitecustomize, before the program: says that everything stands, and what Python took."""


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs inside: where it lies here and there."""

    prefix: str
    """Its folder on this machine; empty where /usr holds it."""
    executable: str
    libraries: str
    """Where its shared library is looked for, inside."""
    packages: tuple[str, ...]
    """Folders of installed packages, inside: they are covered, so that no verdict hangs on them."""


def interpreter() -> Interpreter:
    """This process's own Python; of a virtual environment, the one that it was made from."""
    home = Path(sys.base_prefix).resolve()
    outside = not home.is_relative_to("/usr")
    seen = Path("/python") if outside else home
    program = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    if not program.is_relative_to(home):
        program = home / "bin" / f"python{sysconfig.get_config_var('VERSION')}"
    if not program.is_file():
        raise MachineError(
            "the sandbox does not find the Python to run programs with", where=program
        )
    packages = [*home.glob("lib*/python3*/*-packages"), *home.glob("local/lib/python3*/*-packages")]
    return Interpreter(
        str(home) if outside else "",
        str(seen / program.relative_to(home)),
        str(seen / "lib"),
        tuple(str(seen / folder.relative_to(home)) for folder in packages if folder.is_dir()),
    )


def require() -> None:
    """An error that says what to install where a tool is missing or the machine is not Linux."""
    if platform.system() != "Linux":
        raise MachineError(
            "programs are run in a sandbox only, and it stands on Linux",
            got=platform.system(),
            do="run this step on Linux (a container or virtual machine that allows user namespaces)",
        )
    packages = {"bwrap": "bubblewrap", "unshare": "util-linux", "mount": "mount"}
    packages |= {"prlimit": "util-linux", "setpriv": "util-linux"}
    missing = [tool for tool in packages if shutil.which(tool, path=PATH) is None]
    if missing:
        raise MachineError(
            "programs are run in a sandbox only, and its tools are not installed",
            wanted=", ".join(missing),
            do="install them, e.g. apt install "
            + " ".join(dict.fromkeys(packages[tool] for tool in missing)),
        )
    said = subprocess.run(
        ["bwrap", "--version"], env={"PATH": PATH}, capture_output=True, text=True
    ).stdout
    version = [int(part) for part in re.findall(r"\d+", said)]
    if version < OLDEST:
        raise MachineError(
            "bubblewrap is too old for the sandbox: it cannot close user namespaces behind itself",
            wanted="bubblewrap " + ".".join(map(str, OLDEST)),
            got=said.strip() or "no version",
            do="install a newer one",
        )


def limits_of_process(*, seconds: int, memory: int, processes: int, files: int, disk: int) -> list:
    """The prlimit call that the program is started by; soft and hard limits are equal."""
    return [
        "prlimit",
        f"--cpu={seconds}",
        f"--as={memory}",
        f"--nproc={processes}",
        f"--nofile={files}",
        f"--fsize={disk}",
        f"--stack={8 << 20}",
        "--core=0",
        "--memlock=0",
        "--msgqueue=0",
        "--rttime=0",
        "--",
    ]


def most_processes(processes: int) -> int:
    """The second limit of a run, for a program that may have `processes`: it binds all that is in the
    user namespace that bwrap makes, whatever limit is set, or is not set, inside."""
    return 2 * processes + 16


def command(
    python: Interpreter,
    limits: list[str],
    *,
    processes: int,
    disk: int,
    inodes: int,
    program: int,
    start: int,
    filter: int,
    status: int,
    files: dict[str, int],
    hash_seed: int,
) -> list[str]:
    """The whole command line; program, start, filter, status and files are open file descriptors."""
    root = os.geteuid() == 0
    prepare = ["sh", "-c", PREPARE, "sh", str(disk), str(inodes), python.prefix if root else ""]
    namespace = ["unshare", "--user", "--map-root-user"]
    if root:
        outer = ["unshare", "--mount", *prepare]
        outer += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        outer += ["--inh-caps=-all", "--", *namespace]
    else:
        outer = [*namespace, "--mount", *prepare]
    outer += ["prlimit", f"--nproc={most_processes(processes)}", "--"]
    inner = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns"]
    inner += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"]
    inner += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    inner += ["--json-status-fd", str(status), "--seccomp", str(filter)]
    inner += ["--ro-bind", "/usr", "/usr", *_aliases()]
    inner += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if python.prefix:
        inner += ["--ro-bind", f"{STAGE}/python" if root else python.prefix, "/python"]
    for folder in python.packages:
        inner += ["--ro-bind", f"{STAGE}/empty", folder]
    inner += ["--proc", "/proc", "--dev", "/dev"]
    inner += ["--bind", f"{STAGE}/tmp", "/tmp", "--bind", f"{STAGE}/shm", "/dev/shm"]
    inner += ["--ro-bind-data", str(start), "/start/sitecustomize.py"]
    inner += ["--ro-bind-data", str(program), "/program.py"]
    for name, descriptor in files.items():
        inner += ["--file", str(descriptor), f"/tmp/{name}"]
    inner += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    inner += ["--setenv", "PYTHONPATH", "/start", "--setenv", "PYTHONHASHSEED", str(hash_seed)]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        inner += ["--setenv", "LD_LIBRARY_PATH", python.libraries]
    run = [python.executable, "-s", "-P", "-B", "-X", "utf8", "/program.py"]
    return [*outer, *inner, "--", *limits, *run]


def _aliases() -> list[str]:
    """/bin, /lib and their like: links into /usr as on most systems, or folders of their own."""
    found: list[str] = []
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            found += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            found += ["--ro-bind", name, name]
    return found


def cgroup() -> str:
    """Which control groups this machine has: "v2", "v1" or "none"."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "v2"
    return "v1" if Path("/sys/fs/cgroup/memory").is_dir() else "none"
