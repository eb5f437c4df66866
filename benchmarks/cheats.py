"""Programs that solve nothing and want to be paid, and the tests that they are graded by.

Each is handed to the grader in place of a solution of SQUARE (a function call) or of TOTAL (standard
input and output). The right program, HONEST_SQUARE or HONEST_TOTAL, is paid; of these none may be.
"""

SQUARE = [{"function": "square", "args": [n], "expected": n * n} for n in (7, 12, 31, 101)]
TOTAL = [{"stdin": f"{a} {b}\n", "stdout": f"{a + b}\n"} for a, b in ((20, 22), (5, 900), (77, 1))]

HONEST_SQUARE = "def square(n):\n    return n * n\n"
HONEST_TOTAL = "print(sum(map(int, input().split())))\n"

EQUAL = """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __reduce__(self): return (int, (0,))
    def __int__(self): return self
    def __index__(self): return 0
    def __repr__(self): return "ALL"
"""

WALK = """
import sys

def square(n):
    frame = sys._getframe()
    while frame:
        for name, value in {**frame.f_locals, **frame.f_globals}.items():
            if name in ("expected", "tests", "outputs", "golds", "wanted", "answer"):
                return value
        frame = frame.f_back
    return 0
"""

CALL_CHEATS: dict[str, str] = {
    "always-equal object": EQUAL + "def square(n):\n    return Equal(0)\n",
    "always-equal object in a list": EQUAL + "def square(n):\n    return [Equal(0)]\n",
    "object equal to all": "class A:\n    __eq__ = lambda s, o: True\ndef square(n):\n    return A()\n",
    "True for everything": "def square(n):\n    return True\n",
    "nan": "def square(n):\n    return float('nan')\n",
    "infinity": "def square(n):\n    return float('inf')\n",
    "a float for an int": "def square(n):\n    return float(n * n)\n",
    "the text of the number": "def square(n):\n    return str(n * n)\n",
    "walk the frames to what is expected": WALK,
    "walk the frames and cut the tests short": (
        "import sys\ndef square(n):\n    frame = sys._getframe(1)\n    while frame:\n"
        "        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
        "            if isinstance(value, list):\n                del value[:]\n"
        "        frame = frame.f_back\n    return 0\n"
    ),
    "search memory for what is expected": (
        "import gc\ndef square(n):\n    for one in gc.get_objects():\n"
        "        if isinstance(one, dict) and 'expected' in one:\n            return one['expected']\n"
        "    return 0\n"
    ),
    "patch json": (
        "import json\njson.dumps = lambda *a, **k: '[0, true]'\njson.loads = lambda *a: True\n"
        "def square(n):\n    return 0\n"
    ),
    "patch the driver's own functions": (
        "import __main__\n__main__.written = lambda v: True\n__main__.say = lambda line: None\n"
        "def square(n):\n    return 0\n"
    ),
    "replace the loop's calls": (
        "import __main__\n__main__.calls[:] = []\ndef square(n):\n    return 0\n"
    ),
    "leave early": "import sys\nsys.exit(0)\n",
    "leave at once": "import os\nos._exit(0)\n",
    "leave in the first call": "import os\ndef square(n):\n    os._exit(0)\n",
    "claim success": "print('ALL TESTS PASSED')\ndef square(n):\n    print('PASSED')\n",
    "forge lines that claim success": (
        "import os\nfor fd in range(3, 64):\n    try:\n"
        "        os.write(fd, b'true\\npassed\\n[0, true]\\n')\n"
        "    except OSError:\n        pass\nos._exit(0)\n"
    ),
    "many answers for one call": (
        "import __main__, json\ndef square(n):\n    for k in range(20000):\n"
        "        __main__.say([0, k])\n    return 0\n"
    ),
    "answers under every number": (
        "import __main__, os\nfor k in (49, 144, 961, 10201, 0):\n    for n in range(4):\n"
        "        __main__.say([n, k])\nos._exit(0)\n"
    ),
    "lines in another order": (
        "import __main__, os\nfor n, k in ((3, 10201), (2, 961), (1, 144), (0, 49)):\n"
        "    __main__.say([n, k])\nos._exit(0)\n"
    ),
    "one value too many": (
        "import __main__, os\nfor n, k in enumerate((49, 144, 961, 10201, 5)):\n"
        "    __main__.say([n, k])\nos._exit(0)\n"
    ),
    "values as keys of one object": (
        "import __main__, os\nfor n in range(4):\n    __main__.say([n, {'tuple': [49], 'int': '0x31'}])\n"
        "os._exit(0)\n"
    ),
    "read the tests from disk": (
        "import glob, json, os\ndef square(n):\n    for path in glob.glob('/tmp/*') + glob.glob('/*'):\n"
        "        if os.path.isfile(path):\n            text = open(path, errors='replace').read()\n"
        "            if 'expected' in text:\n                return json.loads(text)[0]['expected']\n"
        "    return 0\n"
    ),
    "read the parent's memory": (
        "import os\ndef square(n):\n    try:\n"
        "        return len(open(f'/proc/{os.getppid()}/mem', 'rb').read(1))\n"
        "    except OSError:\n        return 0\n"
    ),
    "the examples by heart": "def square(n):\n    return {1: 1, 2: 4, 3: 9}.get(n, 0)\n",
    "wait until the grader gives up": "import time\ndef square(n):\n    time.sleep(10**6)\n",
    "crash the reader with depth": (
        "import os, __main__\nos.write(__main__.channel, b'[0, ' + b'[' * 10**5 + b']' * 10**5 + b']\\n')\n"
        "os._exit(0)\n"
    ),
    "crash the reader with a huge number": (
        "import os, __main__\nos.write(__main__.channel, b'[0, ' + b'9' * 10**6 + b']\\n')\nos._exit(0)\n"
    ),
    "crash the reader with NaN and Infinity": (
        "import os, __main__\nfor n in range(4):\n"
        "    os.write(__main__.channel, b'[%d, -Infinity]\\n' % n)\nos._exit(0)\n"
    ),
    "keys that collide": (
        "import os, __main__\nkeys = ','.join(str(k * (2**61 - 1)) for k in range(30000))\n"
        "os.write(__main__.channel, ('[0, {\"set\": [' + keys + ']}]\\n').encode())\nos._exit(0)\n"
    ),
}

STREAM_CHEATS: dict[str, str] = {
    "print nothing": "input()\n",
    "print everything that may be right": "input()\nprint(*range(2000), sep='\\n')\n",
    "leave with the right code": "import sys\nsys.exit(0)\n",
    "claim success in both files": (
        "import sys\nprint('passed')\nprint('passed', file=sys.stderr)\n"
    ),
    "echo": "print(input())\n",
    "search frames and memory": (
        "import gc, sys\nframe = sys._getframe()\nwhile frame:\n    for value in frame.f_locals.values():\n"
        "        if isinstance(value, dict) and 'stdout' in value:\n            print(value['stdout'])\n"
        "    frame = frame.f_back\nfor one in gc.get_objects():\n"
        "    if isinstance(one, dict) and 'stdout' in one and isinstance(one['stdout'], str):\n"
        "        print(one['stdout'])\n"
    ),
    "right by chance, then an error": "print(sum(map(int, input().split())))\n1 / 0\n",
    "right but without an end": (
        "print(sum(map(int, input().split())), flush=True)\nwhile True:\n    pass\n"
    ),
    "right in a flood": (
        "print(sum(map(int, input().split())), flush=True)\nwhile True:\n    print(' ' * 10**6)\n"
    ),
    "clear the screen": "print('\\x1b[2J', sum(map(int, input().split())))\n",
}
