"""Right programs, none of which the grader may refuse: functions of many kinds, each dressed in ways
in which people and models write them. What is expected comes from running the plain form here.
"""

import json
import textwrap
from collections.abc import Iterator

FUNCTIONS: list[tuple[str, str, list[list]]] = [
    ("add", "def add(a, b):\n    return a + b\n", [[1, 2], [-5, 5], [10**30, 1]]),
    (
        "fibonacci",
        "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
        "    return a\n",
        [[0], [10], [300], [30000]],
    ),
    (
        "factorial",
        "def factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)\n",
        [[0], [5], [400]],
    ),
    (
        "primes",
        "def primes(n):\n    return [k for k in range(2, n) if all(k % d for d in range(2, k))]\n",
        [[2], [50]],
    ),
    (
        "sieve",
        "def sieve(n):\n    marks = bytearray([1]) * n\n    marks[:2] = b'\\0\\0'\n"
        "    for k in range(2, int(n**0.5) + 1):\n        if marks[k]:\n"
        "            marks[k * k :: k] = bytes(len(marks[k * k :: k]))\n    return sum(marks)\n",
        [[100], [200000]],
    ),
    (
        "gcd",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a\n",
        [[12, 18], [7, 0]],
    ),
    (
        "reverse",
        "def reverse(text):\n    return text[::-1]\n",
        [["abc"], [""], ["ภาษาไทย"], ["한국어"]],
    ),
    (
        "palindrome",
        "def palindrome(text):\n    text = [c for c in text.lower() if c.isalnum()]\n"
        "    return text == text[::-1]\n",
        [["A man, a plan, a canal: Panama"], ["no"], [""]],
    ),
    (
        "counts",
        "def counts(words):\n    found = {}\n    for word in words:\n"
        "        found[word] = found.get(word, 0) + 1\n    return found\n",
        [[["a", "b", "a"]], [[]]],
    ),
    (
        "counter",
        "from collections import Counter\ndef counter(text):\n    return Counter(text)\n",
        [["hello"], ["สวัสดี"]],
    ),
    (
        "groups",
        "from collections import defaultdict\ndef groups(words):\n    found = defaultdict(list)\n"
        "    for word in words:\n        found[len(word)].append(word)\n    return found\n",
        [[["a", "bb", "c"]]],
    ),
    (
        "unique",
        "def unique(items):\n    return set(items)\n",
        [[[3, 1, 3]], [["ก", "ข", "ก"]], [[]]],
    ),
    ("divide", "def divide(a, b):\n    return a / b\n", [[1, 3], [6, 3], [-1, 8]]),
    (
        "mean",
        "def mean(numbers):\n    return sum(numbers) / len(numbers)\n",
        [[[1, 2, 4]], [[0.1] * 10]],
    ),
    (
        "variance",
        "def variance(x):\n    m = sum(x) / len(x)\n    return sum((v - m) ** 2 for v in x) / len(x)\n",
        [[[1, 2, 3, 4]], [[0.5]]],
    ),
    ("root", "import math\ndef root(x):\n    return math.sqrt(x)\n", [[2], [144], [0.25]]),
    (
        "limits",
        "def limits(x):\n    return [float('inf'), -float('inf'), float('nan'), x]\n",
        [[1.5]],
    ),
    ("pair", "def pair(a, b):\n    return a, b\n", [[1, "x"], [None, True]]),
    (
        "named",
        "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\n"
        "def named(x, y):\n    return Point(x, y)\n",
        [[1, 2]],
    ),
    (
        "flatten",
        "def flatten(x):\n    return [y for z in x for y in flatten(z)] if isinstance(x, list) else [x]\n",
        [[[1, [2, [3, []]]]], [[]]],
    ),
    ("nest", "def nest(n):\n    return [] if n == 0 else [nest(n - 1)]\n", [[3], [60]]),
    (
        "transpose",
        "def transpose(m):\n    return [list(row) for row in zip(*m)]\n",
        [[[[1, 2], [3, 4]]], [[]]],
    ),
    (
        "product",
        "def product(a, b):\n    return [[sum(x * y for x, y in zip(r, c)) for c in zip(*b)] for r in a]\n",
        [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]],
    ),
    (
        "search",
        "import bisect\ndef search(items, x):\n    at = bisect.bisect_left(items, x)\n"
        "    return at if at < len(items) and items[at] == x else -1\n",
        [[[1, 3, 5], 3], [[1, 3], 2]],
    ),
    (
        "quicksort",
        "def quicksort(x):\n    if len(x) < 2:\n        return x\n    p = x[len(x) // 2]\n"
        "    return (quicksort([y for y in x if y < p]) + [y for y in x if y == p]\n"
        "            + quicksort([y for y in x if y > p]))\n",
        [[[3, 1, 2]], [list(range(200, 0, -1))]],
    ),
    (
        "heap",
        "import heapq\ndef heap(x, k):\n    return heapq.nsmallest(k, x)\n",
        [[[5, 1, 4, 2], 2]],
    ),
    (
        "brackets",
        "def brackets(s):\n    stack = []\n    for c in s:\n        if c in '([{':\n"
        "            stack.append(c)\n        elif not stack or stack.pop() + c not in ('()', '[]', '{}'):\n"
        "            return False\n    return not stack\n",
        [["([]{})"], ["(]"], [""]],
    ),
    (
        "distance",
        "from functools import lru_cache\ndef distance(a, b):\n    @lru_cache(None)\n"
        "    def d(i, j):\n        if not i or not j:\n            return i + j\n"
        "        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))\n"
        "    return d(len(a), len(b))\n",
        [["kitten", "sitting"], ["", "abc"]],
    ),
    (
        "knapsack",
        "def knapsack(w, v, c):\n    best = [0] * (c + 1)\n    for a, b in zip(w, v):\n"
        "        for k in range(c, a - 1, -1):\n            best[k] = max(best[k], best[k - a] + b)\n"
        "    return best[c]\n",
        [[[1, 3, 4], [15, 20, 30], 4]],
    ),
    (
        "paths",
        "from collections import deque\ndef paths(grid):\n    n, m = len(grid), len(grid[0])\n"
        "    seen, ahead = {(0, 0)}, deque([(0, 0, 0)])\n"
        "    while ahead:\n        i, j, d = ahead.popleft()\n"
        "        if (i, j) == (n - 1, m - 1):\n            return d\n"
        "        for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):\n"
        "            if 0 <= a < n and 0 <= b < m and not grid[a][b] and (a, b) not in seen:\n"
        "                seen.add((a, b))\n                ahead.append((a, b, d + 1))\n    return -1\n",
        [[[[0, 1], [0, 0]]], [[[0, 1], [1, 0]]]],
    ),
    (
        "queens",
        "def queens(n, row=0, used=()):\n    if row == n:\n        return 1\n"
        "    return sum(queens(n, row + 1, used + (c,)) for c in range(n)\n"
        "               if all(c != u and abs(c - u) != row - r for r, u in enumerate(used)))\n",
        [[4], [6]],
    ),
    (
        "permutations",
        "from itertools import permutations as p\ndef permutations(x):\n    return list(p(x))\n",
        [[[1, 2, 3]], [["a"]]],
    ),
    (
        "window",
        "def window(x, k):\n    return [x[i : i + k] for i in range(len(x) - k + 1)]\n",
        [[[1, 2, 3], 2]],
    ),
    ("digits", "def digits(n):\n    return [int(d) for d in str(n)]\n", [[90210], [0]]),
    (
        "roman",
        "def roman(n):\n    out = ''\n"
        "    for v, s in zip((1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),\n"
        "                    'M CM D CD C XC L XL X IX V IV I'.split()):\n"
        "        out += s * (n // v)\n        n %= v\n"
        "    return out\n",
        [[1994], [8]],
    ),
    (
        "words",
        "import re\ndef words(text):\n    return re.findall(r'\\w+', text)\n",
        [["a b, c"], [""]],
    ),
    (
        "dates",
        "from datetime import date\ndef dates(y, m, d):\n    return date(y, m, d).isoformat()\n",
        [[2024, 2, 29]],
    ),
    ("buddhist", "def buddhist(year):\n    return f'พ.ศ. {year + 543}'\n", [[2025]]),
    (
        "fractions",
        "from fractions import Fraction\ndef fractions(a, b):\n    f = Fraction(a, b)\n"
        "    return [f.numerator, f.denominator]\n",
        [[6, 8]],
    ),
    (
        "decimals",
        "from decimal import Decimal\ndef decimals(a, b):\n    return str(Decimal(a) + Decimal(b))\n",
        [["0.1", "0.2"]],
    ),
    ("nothing", "def nothing(x):\n    return None\n", [[1]]),
    (
        "raises",
        "def raises(x):\n    try:\n        return [][x]\n    except IndexError:\n        return 'none'\n",
        [[3]],
    ),
    (
        "threads",
        "import threading\ndef threads(n):\n    out = []\n"
        "    all = [threading.Thread(target=out.append, args=(k,)) for k in range(n)]\n"
        "    [t.start() for t in all]\n    [t.join() for t in all]\n    return sorted(out)\n",
        [[4]],
    ),
    (
        "generator",
        "def generator(n):\n    def each():\n        yield from (k * k for k in range(n))\n"
        "    return list(each())\n",
        [[4]],
    ),
    ("bits", "def bits(n):\n    return bin(n).count('1')\n", [[255], [0]]),
    ("power", "def power(a, b, m):\n    return pow(a, b, m)\n", [[3, 10**20, 10**9 + 7]]),
    ("big", "def big(n):\n    return 2**n\n", [[64], [40000]]),
]

TASKS = {name: arguments for name, _, arguments in FUNCTIONS}


def _plain(name: str, source: str) -> str:
    return source


def _talkative(name: str, source: str) -> str:
    head = 'print("solving...")\nimport sys, json, os, math, random, collections, typing\n'
    return head + source + "print('done', file=sys.stderr)\n"


def _solution(name: str, source: str) -> str:
    body = textwrap.indent(f"{source}\nreturn {name}(*arguments)\n", "        ")
    return f"class Solution:\n    def {name}(self, *arguments):\n{body}"


def _scripted(name: str, source: str) -> str:
    head = f"# -*- coding: utf-8 -*-\n'''คำอธิบาย: {name}'''\n"
    return f"{head}{source}\nif __name__ == '__main__':\n    print(input())\n"


def _checked(name: str, source: str) -> str:
    """The model's own trial of its function before the end, on an example of the prompt."""
    trial = f"{name}(*{TASKS[name][0]!r})"
    return f"{source}\nassert callable({name})\ntry:\n    {trial}\nexcept Exception:\n    raise\n"


DRESSES = [_plain, _talkative, _solution, _scripted, _checked]


def solutions() -> Iterator[tuple[str, str, list[dict]]]:
    """(name, source, tests): every function in every dress, and as a program that reads and prints."""
    for name, source, arguments in FUNCTIONS:
        own: dict = {}
        exec(compile(source, name, "exec"), own)  # this file's own functions, as they stand above
        expected = [own[name](*each) for each in arguments]
        calls = [
            {"function": name, "args": each, "expected": _type(value)}
            for each, value in zip(arguments, expected)
        ]
        for dress in DRESSES:
            yield f"{name}, {dress.__name__[1:]}", dress(name, source), calls
        try:
            lines = [json.dumps(value, ensure_ascii=False, sort_keys=True) for value in expected]
        except (TypeError, ValueError):  # sets; numbers that are too long to be written
            continue
        program = (
            f"import json, sys\n{source}\nfor line in sys.stdin:\n"
            f"    print(json.dumps({name}(*json.loads(line)), ensure_ascii=False, sort_keys=True))\n"
        )
        inputs = [json.dumps(each, ensure_ascii=False) for each in arguments]
        test = {"stdin": "\n".join(inputs) + "\n", "stdout": "\n".join(lines) + "\n"}
        yield f"{name}, program", program, [test]


def _type(value):
    """Plain types, as a table of tests would hold them."""
    if isinstance(value, dict):
        return {key: _type(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_type(one) for one in value]
    return value
