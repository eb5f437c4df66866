"""How clean text measures, for the thresholds of a pack's filters:

    python tools/calibrate_filters.py LANGUAGE FILE...        (.jsonl or .jsonl.gz with a "text" field)

For every file the 1st, 5th, 50th, 95th and 99th percentile of each measure of lang/quality.py, over
its documents of `min_words` words or more; stop words over `min_words` words from the middle of
each, so that a threshold holds for the shortest. Before them the share that the pack keeps as it is,
and what refuses the rest. Every n-th document is read, so that a file gives at most 1500.
"""

import gzip
import json
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np

from endonym.lang.pack import pack
from endonym.lang.quality import Measures, bare_words, measures, refused, stop_words_in

MOST = 1500
POINTS = (1, 5, 50, 95, 99)


def texts(file: Path) -> list[str]:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        found = [json.loads(line)["text"] for line in lines]
    return found[:: -(-len(found) // MOST)]


def main(language: str, files: list[str]) -> None:
    filters = pack(language).filters
    shortest = filters.min_words

    def middle(text: str) -> list[str]:
        words = bare_words(text, language)
        return words[(len(words) - shortest) // 2 :][:shortest]

    for file in map(Path, files):
        every = [(text, measures(text, language)) for text in texts(file)]
        long = [(text, row) for text, row in every if row.words >= shortest]
        missed = [refused(row, filters) for _, row in long]
        kept = sum(not names for names in missed) / max(len(long), 1)
        reasons = dict(Counter(name for names in missed for name in names).most_common())
        print(f"\n{file.name}: {len(long)} of {len(every)} documents have {shortest} words")
        print(f"  kept {kept:.3f}, refused by {reasons}")
        for name in (field.name for field in fields(Measures)):
            values = [getattr(row, name) for _, row in long]
            if name == "stop_words":
                values = [len(stop_words_in(middle(text), language)) for text, _ in long]
            if values:
                rows = (
                    np.percentile(np.array(values, dtype=float), POINTS, axis=0).round(3).tolist()
                )
                print(f"  {name:26}", *(f"p{p} {row}" for p, row in zip(POINTS, rows)), sep="  ")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
