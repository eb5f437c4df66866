"""A thousand answers judged as mathematics, one in twenty of them hostile, beside math-verify alone.

    python -m benchmarks.math_answers DATA [--rows 1000] [--peer 100]

DATA/eval/en/math500.jsonl.gz gives the gold answers. Of them are made answers that are equal (as they
are, written otherwise, in Thai digits, with a unit, as twice the half), answers that are not (another
row's gold, one more), and hostile ones, which no gold equals. Reported: verdicts that are not what the
answer was made to be, processor seconds with those of the workers, seconds by the clock, workers left.

The peer is math-verify as it is meant to be called, in the main thread with its own time limit, on the
first --peer rows of the same.
"""

import argparse
import gzip
import json
import os
import random
import re
import resource
import time
from collections import Counter
from pathlib import Path

from endonym.rewards import math_pool
from endonym.rewards.answer import number
from endonym.rewards.math import verdicts

HOSTILE_SHARE = 0.05
HOSTILE = [
    "9^9^9^9",
    "9^{9^{9^{9}}}",
    "10^{10^{10}}",
    "1000000!",
    "(" * 3000 + "1" + ")" * 3000,
    "{" * 3000 + "1" + "}" * 3000,
    "9" * 200_000,
    r"\frac{1}{2}" * 500,
    # Not refused beforehand: these reach a worker.
    r"\binom{1000000}{500000}",
    "(x^{9999}+1)^{9999}",
    r"\sum_{k=1}^{10^9} k^k",
]
THAI = str.maketrans("0123456789", "๐๑๒๓๔๕๖๗๘๙")


def rows(data: Path, amount: int, seed: int = 0) -> list[tuple[str, str, bool, str]]:
    """(answer, gold, whether it is equal, how it was made)."""
    text = gzip.decompress((data / "eval/en/math500.jsonl.gz").read_bytes()).decode()
    golds = [json.loads(line)["answer"] for line in text.splitlines()]
    chance = random.Random(seed)
    made = []
    while len(made) < amount:
        gold = chance.choice(golds)
        if len(made) % round(1 / HOSTILE_SHARE) == 0:
            made.append((chance.choice(HOSTILE), gold, False, "hostile"))
            continue
        ways = [
            (gold, True, "as it is"),
            (gold.replace(r"\frac", r"\dfrac"), True, "spelt otherwise"),
        ]
        other = chance.choice(golds)
        if other != gold:
            ways.append((other, False, "another row's"))
        if number(gold) is not None:
            ways.append((gold.translate(THAI), True, "Thai digits"))
            ways.append((rf"{gold}\text{{ บาท}}", True, "with a unit"))
            ways.append((f"{number(gold) + 1}", False, "one more"))
        elif not re.search(r"text|,|=|in|_|\\%|\^\\circ|\d \\frac", gold):
            ways.append((rf"\frac{{2({gold})}}{{2}}", True, "twice the half"))
            ways.append((rf"{gold}+1", False, "one more"))
        made.append((*(way := chance.choice(ways))[:1], gold, *way[1:]))
    return made


def spent() -> float:
    """Processor seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def ours(made: list[tuple[str, str, bool, str]]) -> dict:
    before, clock = spent(), time.perf_counter()
    found = verdicts([(rf"\boxed{{{answer}}}", gold, "th", "") for answer, gold, *_ in made])
    seconds = time.perf_counter() - clock
    workers = [worker for worker in math_pool._POOL[0].idle.queue if worker is not None]
    math_pool._close()
    left = [worker for worker in workers if os.path.exists(f"/proc/{worker.process.pid}")]
    return {
        "verdicts": dict(Counter(found)),
        "wrong": wrong(made, [each == "equal" for each in found]),
        "hostile": dict(Counter(v for v, row in zip(found, made) if row[3] == "hostile")),
        "processor seconds": round(spent() - before, 2),
        "seconds": round(seconds, 2),
        "workers left": len(left),
    }


def peer(made: list[tuple[str, str, bool, str]]) -> dict:
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    before, clock, found = spent(), time.perf_counter(), []
    for answer, gold, *_ in made:
        found.append(verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}")))
    return {
        "wrong": wrong(made, found),
        "processor seconds": round(spent() - before, 2),
        "seconds": round(time.perf_counter() - clock, 2),
    }


def wrong(made: list[tuple[str, str, bool, str]], found: list[bool]) -> dict[str, list]:
    """By how an answer was made: how many are not judged as they were made, and up to three of them."""
    missed: dict[str, list] = {}
    for (answer, gold, is_equal, how), judged in zip(made, found):
        if judged != is_equal:
            missed.setdefault(how, []).append((answer[:60], gold[:60]))
    return {how: [len(pairs), *pairs[:3]] for how, pairs in missed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--peer", type=int, default=0)
    given = parser.parse_args()
    made = rows(given.data, given.rows)
    print(json.dumps({"made": Counter(row[3] for row in made)}, ensure_ascii=False))
    print(json.dumps({"ours": ours(made)}, ensure_ascii=False, indent=1))
    if given.peer:
        found = peer(made[: given.peer])
        print(json.dumps({"math-verify alone": found}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
