"""The first program in every sandbox: it tries what none must be able to do, and must fail at all of it.

    PROGRAM.format(planted, door, parent, processes) -> prints {"what it tried": whether it could}

planted: a file with a secret; door: an abstract socket that someone listens on; parent: a process.
All are there outside. processes: how many there may be inside; the limit is tried, for a limit that
is set may still not bind (it does not bind root).
"""

PROGRAM = """
import json, os, socket

OURS = {{"PWD", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHASHSEED"}}

def can(act):
    try:
        return bool(act())
    except Exception:
        return False

def write(path):
    with open(path, "w") as file:
        return file.write("x")

def connect(family, address):
    with socket.socket(family) as one:
        one.settimeout(1)
        one.connect(address)
        return True

def fork(most):
    read, write = os.pipe()
    children = []
    try:
        while len(children) < most:
            child = os.fork()
            if child == 0:
                os.close(write)
                os.read(read, 1)
                os._exit(0)
            children.append(child)
        return True
    finally:
        os.close(write)
        for child in children:
            os.waitpid(child, 0)

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({{
    "read a planted file": can(lambda: open({planted!r}, "rb").read()),
    "read /etc/passwd": can(lambda: open("/etc/passwd", "rb").read()),
    "see a home folder": can(lambda: os.listdir("/home") or os.listdir("/root")),
    "see processes outside": can(lambda: {parent} > 64 and os.path.exists("/proc/{parent}")),
    "see an environment": can(lambda: set(os.environ) - OURS),
    "open an internet socket": can(lambda: socket.socket(socket.AF_INET)),
    "open a netlink socket": can(lambda: socket.socket(socket.AF_NETLINK)),
    "reach a socket outside": can(lambda: connect(socket.AF_UNIX, "\\0" + {door!r})),
    "write to /usr": can(lambda: write("/usr/x")),
    "write to /": can(lambda: write("/x")),
    "write to /dev": can(lambda: write("/dev/x")),
    "be root": os.getuid() == 0 or os.getgid() == 0,
    "hold capabilities": any(int(status["Cap" + name], 16) for name in ("Prm", "Eff", "Bnd", "Amb")),
    "gain privileges": int(status["NoNewPrivs"]) != 1,
    "call what the filter refuses": int(status["Seccomp"]) != 2,
    "make a namespace": can(lambda: __import__("ctypes").CDLL(None).unshare(0x10000000) == 0),
    "make many processes": can(lambda: fork({processes})),
    "make many files": can(lambda: max(os.statvfs("/tmp").f_files, os.statvfs("/dev/shm").f_files) > 1 << 20),
}}))
"""
