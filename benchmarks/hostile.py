"""Programs that want out of the sandbox, or want the machine: each must come to nothing.

A program prints ESCAPED where it could do what it must not. `ends` are the ways it may end; `quick` ones
end at once, the others are stopped by a limit.
"""

from dataclasses import dataclass

ESCAPED = b"ESCAPED"


@dataclass(frozen=True)
class Hostile:
    name: str
    source: str | bytes
    ends: tuple[str, ...] = ("ok", "error")
    quick: bool = True


def refused(name: str, act: str, before: str = "", errors: str = "OSError") -> Hostile:
    """A program whose act must raise one of `errors`."""
    source = (
        f"import os, sys, ctypes, socket\n{before}\ntry:\n    {act}\n"
        f"except ({errors}) as error:\n    print('refused', error)\nelse:\n    print('ESCAPED')\n"
    )
    return Hostile(name, source, ("ok",))


def call(name: str, numbers: str, arguments: str = "0, 0, 0, 0, 0") -> Hostile:
    """A system call by number (x86_64, aarch64) that must fail with EPERM or ENOSYS."""
    source = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"number = dict(zip(('x86_64', 'aarch64'), ({numbers})))[os.uname().machine]\n"
        f"result = libc.syscall(number, {arguments})\n"
        "print('ESCAPED' if result >= 0 or ctypes.get_errno() not in (1, 38) else 'refused')\n"
    )
    return Hostile(name, source, ("ok",))


STOPPED = ("timeout",)
CRASHED = ("killed", "error", "memory")

PROCESSES = [
    Hostile(
        "fork bomb",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        ("timeout", "memory"),
        quick=False,
    ),
    Hostile(
        "fork bomb by subprocess",
        "import subprocess, sys\nwhile True:\n    try:\n"
        "        subprocess.Popen([sys.executable, sys.argv[0]])\n"
        "    except OSError:\n        pass\n",
        ("timeout", "memory", "killed"),
        quick=False,
    ),
    Hostile(
        "thread bomb",
        "import threading, time\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
        ("error",),
    ),
    Hostile(
        "two fork bombs and a daemon",
        "import os\nfor _ in range(2):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        while True:\n            try:\n                os.fork()\n"
        "            except OSError:\n                pass\n",
        ("ok", "timeout", "memory"),
        quick=False,
    ),
    Hostile(
        "children that burn time unseen",
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n"
        "    if os.fork() == 0:\n        end = time.process_time() + 0.2\n"
        "        while time.process_time() < end:\n            pass\n        os._exit(0)\n"
        "    time.sleep(0.21)\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "sixteen at once share one limit of time",
        "import os\nfor _ in range(8):\n    if os.fork() == 0:\n        while True:\n            pass\n"
        "while True:\n    pass\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "daemon that holds the pipes",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        while True:\n            time.sleep(0.01)\n            os.write(1, b'late ')\n"
        "    os._exit(0)\nos.wait()\nprint('gone')\n",
        ("ok",),
    ),
    Hostile(
        "daemon that waits for the next program",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    [os.close(n) for n in range(3)]\n"
        "    time.sleep(3600)\n",
        ("ok",),
    ),
    Hostile("infinite loop", "while True:\n    pass\n", STOPPED, quick=False),
    Hostile("sleeps for ever", "import time\ntime.sleep(10**6)\n", STOPPED, quick=False),
    Hostile(
        "sleeps in small pieces",
        "import time\nwhile True:\n    time.sleep(0.5)\n    sum(range(400_000))\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "ignores all signals",
        "import signal\nfor n in range(1, 65):\n    try:\n"
        "        signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
        "while True:\n    pass\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "catches SIGXCPU",
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True:\n    pass\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "storm of interval timers",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nwhile True:\n    pass\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "shell loop by execve",
        "import os\nos.execve('/bin/sh', ['sh', '-c', 'while :; do :; done'], {})\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "kills everyone",
        "import os, signal\nos.kill(-1, signal.SIGKILL)\n",
        ("ok", "killed", "error"),
    ),
    Hostile(
        "kills its parent and the first process",
        "import os, signal\nfor pid in (1, os.getppid()):\n    try:\n"
        "        os.kill(pid, signal.SIGKILL)\n    except OSError:\n        pass\nprint('on')\n",
        ("ok", "killed"),
    ),
    Hostile(
        "stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n", STOPPED, False
    ),
    Hostile(
        "stops the first process",
        "import os, signal\nos.kill(1, signal.SIGSTOP)\nprint('on')\n",
        ("ok",),
    ),
    Hostile(
        "raises its niceness back",
        "import os\ntry:\n    os.nice(-20)\n    print('ESCAPED')\nexcept OSError:\n    pass\n",
        ("ok",),
    ),
    Hostile(
        "asks for real-time scheduling",
        "import os\ntry:\n    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))\n"
        "    print('ESCAPED')\nexcept OSError:\n    pass\n",
        ("ok",),
    ),
    Hostile(
        "closes its standard files and loops",
        "import os\n[os.close(n) for n in range(3)]\nwhile True:\n    pass\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "raises its own limits",
        "import resource\nfor name in ('RLIMIT_CPU', 'RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_FSIZE'):\n"
        "    try:\n        resource.setrlimit(getattr(resource, name), (-1, -1))\n"
        "        print('ESCAPED', name)\n    except (OSError, ValueError):\n        pass\n",
        ("ok",),
    ),
]

MEMORY = [
    Hostile(
        "memory in steps", "x = []\nwhile True:\n    x.append(bytearray(1 << 22))\n", ("memory",)
    ),
    Hostile("memory in one go", "x = bytearray(1 << 40)\n", ("memory",)),
    Hostile(
        "memory by many processes",
        "import os\nfor _ in range(7):\n    if os.fork() == 0:\n        break\n"
        "x = bytearray(300 << 20)\nx[::4096] = b'x' * len(x[::4096])\nimport time\ntime.sleep(30)\n",
        ("memory", "timeout"),
        quick=False,
    ),
    Hostile(
        "memory by fourteen processes at once",
        "import os\nfor _ in range(14):\n    if os.fork() == 0:\n        break\n"
        "x = b'x' * (450 << 20)\nimport time\ntime.sleep(30)\n",
        ("memory", "timeout"),
        quick=False,
    ),
    Hostile(
        "shared memory of System V",
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "print('ESCAPED' if libc.shmget(0, 1 << 30, 0o1600) >= 0 else 'refused')\n",
        ("ok",),
    ),
    refused("memory file", "os.memfd_create('x')"),
    Hostile(
        "one big file in /dev/shm",
        "with open('/dev/shm/x', 'wb') as file:\n    for _ in range(4096):\n"
        "        file.write(bytes(1 << 20))\nprint('ESCAPED')\n",
        CRASHED,
    ),
    Hostile(
        "many files in /dev/shm",
        "for n in range(4096):\n    with open(f'/dev/shm/{n}', 'wb') as file:\n"
        "        file.write(bytes(1 << 20))\nprint('ESCAPED')\n",
        ("error",),
    ),
    Hostile(
        "many files in /tmp",
        "for n in range(4096):\n    with open(f'/tmp/{n}', 'wb') as file:\n"
        "        file.write(bytes(1 << 20))\nprint('ESCAPED')\n",
        ("error",),
    ),
    Hostile(
        "inodes in /tmp",
        "for n in range(10**6):\n    open(f'/tmp/{n}', 'wb').close()\nprint('ESCAPED')\n",
        ("error",),
    ),
    Hostile(
        "inodes in /dev/shm",
        "import os\nfor n in range(10**6):\n    os.mkdir(f'/dev/shm/{n}')\nprint('ESCAPED')\n",
        ("error",),
    ),
    Hostile(
        "bytes wherever they go",
        "import os\ndone = 0\nfor folder in ('/', '/dev', '/dev/pts', '/dev/mqueue', '/run', '/var/tmp',\n"
        "               '/start', '/python', '/usr', '/proc', '/sys', '/etc', '/dev/shm', '/tmp'):\n"
        "    try:\n        with open(folder + '/x', 'wb') as file:\n            while True:\n"
        "                done += file.write(bytes(1 << 20))\n    except OSError:\n        pass\n"
        "print('ESCAPED' if done > 40 << 20 else done)\n",
        ("ok", "killed"),
    ),
    Hostile(
        "deleted files that stay open",
        "import os\nkept = []\nfor n in range(50):\n    kept.append(open('/tmp/x', 'wb', buffering=0))\n"
        "    os.unlink('/tmp/x')\n    kept[-1].write(bytes(1 << 20))\nprint(len(kept))\n"
        "print('ESCAPED' if os.fstat(kept[-1].fileno()).st_size else '')\n",
        ("ok", "error"),
    ),
    Hostile(
        "recursion without a limit",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    f()\nf()\n",
        ("killed", "memory", "timeout", "error"),
        quick=False,
    ),
    Hostile("bomb of nested brackets", "eval('(' * 10**6)\n", CRASHED),
    Hostile("bomb of unary minus", "eval('-' * 10**6 + '1')\n", CRASHED),
    Hostile(
        "bomb of compressed zeros",
        "import zlib\nx = zlib.compress(bytes(10**8), 9)\ny = [zlib.decompress(x) for _ in range(100)]\n",
        ("memory", "timeout"),
        quick=False,
    ),
    Hostile("a power of powers", "x = 9**9**8\n", ("timeout", "memory"), quick=False),
    Hostile(
        "decimal of a huge number",
        "import sys\nsys.set_int_max_str_digits(0)\nprint(len(str(10**(10**7))))\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "regular expression that backtracks",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')\n",
        STOPPED,
        quick=False,
    ),
    Hostile(
        "pipes and sockets full of bytes",
        "import os, socket\nkept = []\ntry:\n    while True:\n        kept.append(socket.socketpair())\n"
        "        kept[-1][0].setblocking(False)\n        try:\n            while True:\n"
        "                kept[-1][0].send(bytes(1 << 16))\n        except BlockingIOError:\n"
        "            pass\nexcept OSError:\n    print('ESCAPED' if len(kept) > 64 else len(kept))\n",
        ("ok",),
    ),
]

OUTPUT = [
    Hostile("flood of output", "while True:\n    print('x' * 10**6)\n", ("killed",)),
    Hostile(
        "flood of errors",
        "import sys\nwhile True:\n    sys.stderr.write('x' * 10**6)\n",
        ("killed",),
    ),
    Hostile("200 MB without a line's end", "print('x' * (200 << 20))\n", ("killed",)),
    Hostile("bytes that are no UTF-8", "import os\nos.write(1, bytes(range(256)))\n", ("ok",)),
    Hostile("output after its end", "import atexit\natexit.register(print, 'late')\n", ("ok",)),
    Hostile("NUL in the source", b"print(1)\0\nprint(2)\n", ("ok", "error")),
    Hostile("lone surrogates in the source", "print('\ud800')\n", ("error",)),
    Hostile("source that is no text", bytes(range(256)) * 8, ("error",)),
    Hostile("JSON a million deep", "print('[' * 10**6 + ']' * 10**6)\n", ("ok", "killed")),
]

MACHINE = [
    refused("reads /etc/passwd", "open('/etc/passwd').read()"),
    refused("reads /etc/shadow", "open('/etc/shadow').read()"),
    refused("lists /root", "os.listdir('/root')"),
    refused("lists /home", "os.listdir('/home')"),
    refused("lists /var", "os.listdir('/var')"),
    Hostile(
        "looks for an environment",
        "import os\nraw = open('/proc/self/environ', 'rb').read()\n"
        "known = ('PWD', 'LC_CTYPE', 'LD_LIBRARY_PATH', 'PYTHONHASHSEED')\n"
        "print('ESCAPED' if set(os.environ) - set(known) or b'HOME' in raw else 'none')\n",
        ("ok",),
    ),
    Hostile(
        "looks for open descriptors",
        "import os, stat\nfor n in os.listdir('/proc/self/fd'):\n    try:\n"
        "        kind = os.fstat(int(n)).st_mode\n    except OSError:\n        continue\n"
        "    if int(n) > 2 and not stat.S_ISDIR(kind):\n        print('ESCAPED', n)\n"
        "    if int(n) <= 2 and not stat.S_ISFIFO(kind):\n        print('ESCAPED', n)\n",
        ("ok",),
    ),
    Hostile(
        "goes through /proc/1/root",
        "import os\nprint('ESCAPED' if {'home', 'root', 'etc'} & set(os.listdir('/proc/1/root')) - {'etc'}"
        " else 'own')\n",
        ("ok", "error"),
    ),
    Hostile(
        "writes into the files of the first process",
        "import os\nfor n in range(3, 64):\n    try:\n"
        "        fd = os.open(f'/proc/1/fd/{n}', os.O_WRONLY)\n"
        "        os.write(fd, b'{\"exit-code\": 0}\\n')\n        print('ESCAPED', n)\n"
        "    except OSError:\n        pass\n",
        ("ok",),
    ),
    Hostile(
        "climbs out by ..",
        "import os\nos.chdir('/' + '../' * 50)\n"
        "print('ESCAPED' if os.path.exists('home') or os.path.exists('root') else 'own')\n",
        ("ok",),
    ),
    Hostile(
        "counts the machine's processes",
        "import os\nfound = [n for n in os.listdir('/proc') if n.isdigit()]\n"
        "print('ESCAPED' if len(found) > 4 else len(found))\n",
        ("ok",),
    ),
    Hostile(
        "reads a link that points out",
        "import os\nos.symlink('/etc/passwd', '/tmp/x')\ntry:\n    open('/tmp/x').read()\n"
        "    print('ESCAPED')\nexcept OSError:\n    pass\n",
        ("ok",),
    ),
    refused("reads the kernel's memory", "open('/proc/kcore', 'rb').read(1)"),
    refused("writes to /usr", "open('/usr/x', 'w')"),
    refused("writes to its own source", "open('/program.py', 'w')"),
    refused("replaces its own source", "os.rename('/tmp', '/program.py')"),
    refused("unlinks its own source", "os.unlink('/program.py')"),
    refused("writes to the interpreter", "open(os.path.realpath(sys.executable), 'r+b')"),
    refused("writes to the kernel's settings", "open('/proc/sys/kernel/hostname', 'w').write('x')"),
    refused("asks the kernel to restart", "open('/proc/sysrq-trigger', 'w').write('h')"),
    refused("makes a device", "os.mknod('/tmp/x', 0o20666, os.makedev(1, 1))"),
    refused("becomes root", "os.setuid(0)"),
    refused("becomes another group", "os.setgid(0)"),
    refused("changes its root folder", "os.chroot('/tmp')"),
    refused("sets the clock", "import time; time.clock_settime(time.CLOCK_REALTIME, time.time())"),
    Hostile(
        "protects itself from being killed for memory",
        "import os\ntry:\n    fd = os.open('/proc/self/oom_score_adj', os.O_WRONLY)\n"
        "    os.write(fd, b'-1000')\nexcept OSError:\n    pass\n"
        "print('ESCAPED' if int(open('/proc/self/oom_score_adj').read()) < 0 else 'as it was')\n",
        ("ok",),
    ),
    call("mounts a file system", "165, 40", "b'none', b'/tmp', b'tmpfs', 0, 0"),
    call("makes a user namespace", "272, 97", "0x10000000, 0, 0, 0, 0"),
    call("clones into a user namespace", "56, 220", "0x10000011, 0, 0, 0, 0"),
    call("clones by clone3", "435, 435", "0, 0, 0, 0, 0"),
    call("traces the first process", "101, 117", "16, 1, 0, 0, 0"),
    call("reads another's memory", "310, 270", "1, 0, 0, 0, 0"),
    call("loads a BPF program", "321, 280"),
    call("opens io_uring", "425, 425", "8, 0, 0, 0, 0"),
    call("opens userfaultfd", "323, 282"),
    call("asks the keyring", "250, 219"),
    call("watches performance counters", "298, 241"),
    call("loads a kernel module", "175, 105"),
    call("restarts the machine", "169, 142", "0xfee1dead, 672274793, 0, 0, 0"),
    call("opens by handle", "304, 265"),
    Hostile(
        "calls in 32-bit numbering",
        "import ctypes, mmap, os\nif os.uname().machine == 'x86_64':\n"
        "    page = mmap.mmap(-1, 4096, prot=7)\n"
        "    page.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')  # getpid by int 0x80\n"
        "    place = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "    print('ESCAPED', ctypes.CFUNCTYPE(ctypes.c_int)(place)())\n",
        ("ok", "killed"),
    ),
    Hostile(
        "types into the terminal",
        "import fcntl\ntry:\n    fcntl.ioctl(0, 0x5412, b'x')\n    print('ESCAPED')\n"
        "except OSError:\n    pass\n",
        ("ok",),
    ),
    Hostile("crashes by ctypes", "import ctypes\nctypes.string_at(0)\n", ("killed",)),
    Hostile(
        "leaves a poisoned module",
        "import os, sys\nfor folder in ['/tmp', '/start', os.path.dirname(os.__file__), '/']:\n    try:\n"
        "        with open(folder + '/json.py', 'w') as file:\n"
        "            file.write('raise SystemExit(7)')\n"
        "        print('ESCAPED' if folder != '/tmp' else 'in /tmp')\n    except OSError:\n        pass\n",
        ("ok",),
    ),
    Hostile(
        "finds what an earlier program left",
        "import os\nprint('ESCAPED' if os.listdir('/tmp') or os.listdir('/dev/shm') else 'empty')\n",
        ("ok",),
    ),
]

NETWORK = [
    refused("TCP to the machine itself", "socket.create_connection(('127.0.0.1', 22), 1)"),
    refused("a server", "socket.socket().bind(('0.0.0.0', 8000))"),
    refused("UDP", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"),
    refused("IPv6", "socket.socket(socket.AF_INET6)"),
    refused("raw packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    refused("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    refused("virtual machine sockets", "socket.socket(40)"),
    refused(
        "names",
        "socket.getaddrinfo('localhost', 80, proto=6)[0] and socket.gethostbyname('a.example')",
    ),
    refused(
        "a web page", "__import__('urllib.request').request.urlopen('http://127.0.0.1', timeout=1)"
    ),
    refused(
        "an abstract socket outside",
        "socket.socket(socket.AF_UNIX).connect('\\0/tmp/.X11-unix/X0')",
    ),
    refused(
        "the container engine", "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')"
    ),
    Hostile(
        "a program of the machine that calls out",
        "import subprocess\ntry:\n    done = subprocess.run(['/usr/bin/perl', '-MIO::Socket::INET', '-e',\n"
        '        \'print IO::Socket::INET->new(PeerAddr=>"127.0.0.1:22") ? "ESCAPED" : "no"\'],\n'
        "        timeout=5, capture_output=True, text=True)\n    print(done.stdout)\n"
        "except OSError as error:\n    print(error)\n",
        ("ok",),
    ),
]

GRADER = [
    Hostile("leaves early", "import sys\nsys.exit(0)\n", ("ok",)),
    Hostile("leaves at once", "import os\nos._exit(0)\n", ("ok",)),
    Hostile("claims success", "print('ALL TESTS PASSED')\n", ("ok",)),
    Hostile(
        "looks for expected values in memory",
        "import gc, sys\nframe = sys._getframe()\nwhile frame:\n    if 'expected' in frame.f_locals:\n"
        "        print('ESCAPED')\n    frame = frame.f_back\n"
        "if any('expected' in o for o in gc.get_objects() if type(o) is dict):\n    print('ESCAPED')\n",
        ("ok",),
    ),
    Hostile(
        "reads its parent's command line",
        "import os\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n    try:\n"
        "        line = open(f'/proc/{pid}/environ', 'rb').read()\n"
        "        if b'HOME=' in line or b'SECRET' in line:\n            print('ESCAPED', pid)\n"
        "    except OSError:\n        pass\n",
        ("ok",),
    ),
]

HOSTILE = [*PROCESSES, *MEMORY, *OUTPUT, *MACHINE, *NETWORK, *GRADER]
