"""A tokenizer.json under extension (extend.py): characters, then merges learnt over old ids, then ids.

    Growth(...)      the old vocabulary and merges, less what is given up (keep.py)
    add_characters   one token for each character of the script
    add_merges       texts -> old ids -> letters -> the stock trainer -> merges over old ids
    finished         new ids, control tokens, the stock tokenizer.json

N is the number of tokens in a batch of lines.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.lang import script as scripts
from endonym.tokenizer import chat, corpus, keep, letters, pretokenize
from endonym.tokenizer.corpus import Segmenter
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import Script, Units

SPARE = 1.1
"""The trainer is asked for this much more than needed: a merge that rebuilds an old token adds none."""
CHUNK = 1 << 14
"""Letters that the trainer is handed at once."""


class Growth:
    """A tokenizer.json under extension: vocabulary and merges grow together.

    state: of `old`, without the tokens in `gone`, whose ids are free; room: how many new tokens

    New tokens have ids above all old ones until finished() gives them their own.
    """

    def __init__(
        self, state: dict, old: Tokenizer, script: Script, room: int, gone: dict[str, int]
    ):
        self.state, self.old, self.script, self.room = state, old, script, room
        self.gone, self.dropped = gone, sorted(gone.values())
        self.units = Units.of(state)
        self.vocabulary: dict[str, int] = state["model"]["vocab"]
        self.merges: list[tuple[str, str]] = [tuple(pair) for pair in state["model"]["merges"]]
        self.known = set(self.merges)
        self.pieces: dict[int, list[int]] = {}
        self.characters = self.skipped = 0
        for token in state["added_tokens"]:  # so that loading cannot renumber them
            self.vocabulary.setdefault(token["content"], token["id"])
        self.next_id = old.vocab_size
        self.marks = pretokenize.marks(script.ranges) if script.ranges else ""
        state["pre_tokenizer"] = pretokenize.join_marks(state["pre_tokenizer"], self.marks)

    def new_token(self, token: str) -> None:
        self.vocabulary[token] = self.next_id
        self.next_id, self.room = self.next_id + 1, self.room - 1

    def merge(self, left: str, right: str) -> None:
        """One more merge; a new token where its result is none yet."""
        if (left, right) in self.known:
            return
        if left + right not in self.vocabulary:
            self.new_token(left + right)
        self.known.add((left, right))
        self.merges.append((left, right))

    def backend(self, **model: Any) -> Backend:
        """The tokenizer as it stands, `model` changing settings of its BPE model."""
        self.state["model"]["merges"] = [list(pair) for pair in self.merges]
        return Backend.from_str(json.dumps(self.state | {"model": self.state["model"] | model}))

    # --- characters -----------------------------------------------------------------------------

    def add_characters(self, texts: Iterable[str], min_count: int) -> None:
        """One token for each character of the script that the texts use, most frequent first."""
        counts: Counter[str] = Counter()
        compose = self.old.backend.normalizer
        for text in texts:
            if compose and not unicodedata.is_normalized("NFC", text):
                text = compose.normalize_str(text)  # else Hangul in jamo would count as jamo
            counts.update(text)
        self._require_script(counts)
        as_it_is = not self.gone and not self.state["model"].get("ignore_merges")
        model = self.old.backend.model if as_it_is else self.backend(ignore_merges=False).model
        for character, times in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            if times < min_count or self.room <= 0:
                break
            if not self._lacks(character):
                continue
            if self.units.byte_fallback:
                if character not in self.vocabulary:
                    self.new_token(character)
                    self.characters += 1
                continue
            parts = [token.value for token in model.tokenize(self.units.spell(character))]
            prefixes = ["".join(parts[: n + 1]) for n in range(1, len(parts))]
            if not all(self.script.binds(self.units.raw(prefix)) for prefix in prefixes):
                self.skipped += 1
                continue
            before = self.next_id
            for left, right in zip([parts[0], *prefixes], parts[1:]):
                if self.room > 0:
                    self.merge(left, right)
            self.characters += self.next_id > before

    def _lacks(self, character: str) -> bool:
        """Whether this character should be a token: of the script, or of any where none is named."""
        if self.script.ranges:
            return ord(character) in self.script
        return self.units.byte_fallback and not character.isspace()

    def _require_script(self, counts: Counter[str]) -> None:
        if not self.script.ranges or any(ord(character) in self.script for character in counts):
            return
        found = Counter(map(scripts.script_of, counts)).keys() - {None}
        raise DataError(
            "the texts hold nothing of the script that the vocabulary is to be grown for",
            wanted=", ".join(f"U+{low:04X} to U+{high:04X}" for low, high in self.script.ranges),
            got=f"letters of {', '.join(sorted(found))}" if found else "no letters",
            do="give texts of the language, or name the language that they are in",
        )

    # --- merges ---------------------------------------------------------------------------------

    def add_merges(self, texts: Iterable[str], segment: Segmenter | None, min_count: int) -> None:
        """Merges learnt from the texts until the room is used up, or the texts are."""
        lines, used = self._as_letters(texts, segment)
        names = {number: token for token, number in self.vocabulary.items()}
        spelt = [names[number] for number in used]
        asked = int(self.room * SPARE) + 64
        while self.room > 0 and lines:
            learnt = letters.merges(lines, range(len(used)), asked, min_count)
            for left, right in learnt:
                if self.room <= 0:
                    break
                self.merge(
                    "".join(map(spelt.__getitem__, left)), "".join(map(spelt.__getitem__, right))
                )
            if len(learnt) < asked:  # there are no more
                break
            asked *= 2

    def _as_letters(
        self, texts: Iterable[str], segment: Segmenter | None
    ) -> tuple[list[str], list[int]]:
        """Lines of the texts as letters, a space wherever no merge may go; and the id of each letter.

        Letters are numbered in order of their first line, then by id. Runs of one letter are left out:
        there is nothing to merge in them.
        """
        blind = Tokenizer(self.backend(), self.old.named).control.blind[1]
        tables = self.units.tables(self.vocabulary, self.state["added_tokens"], self.script)
        letter_of = np.full(self.next_id, -1, dtype=np.int64)
        out: list[str] = []
        used: list[int] = []
        of_script = filter(self.script.occurs, corpus.lines(texts))
        for batch in keep.batches(of_script):
            found = [
                (line, each)
                for line, each in zip(batch, blind.encode_batch(batch))
                if len(each) > 1
            ]
            if not found:
                continue
            lengths = np.array([len(each) for _, each in found])
            ids, pre_tokens = (
                np.fromiter(chain.from_iterable(column), np.int64, lengths.sum())
                for column in ((e.ids for _, e in found), (e.word_ids for _, e in found))
            )
            last = np.cumsum(lengths) - 1
            for number in _in_order(ids, last, letter_of):
                letter_of[number] = len(used)
                used.append(number)
            borders = tables.borders(ids, pre_tokens)
            borders[last] = True
            if segment is not None:
                lines = [line for line, _ in found]
                borders |= tables.word_ends(ids, last, lines, blind.normalizer, segment)
            borders |= _too_long(borders)
            alone = borders & np.concatenate([[True], borders[:-1]])
            out += _written(letter_of[ids[~alone]], borders[~alone])
        return out, used

    # --- end ------------------------------------------------------------------------------------

    def finished(self, specials: Sequence[str]) -> Tokenizer:
        """The grown tokenizer, `specials` as its last tokens; pieces and dropped hold its final ids."""
        free = self._renumber(len(specials))
        for text in specials:
            number = next(free)
            self.pieces[number] = self.old.encode(text, literal=True)
            self.vocabulary[text] = number
            self.state["added_tokens"].append(
                {
                    "id": number,
                    "content": text,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            )
        backend, template = self.backend(), self.old.template
        if template is None and {chat.TURN_START, chat.TURN_END} <= set(specials):
            template = chat.CHATML
        named = dict(self.old.named)
        if chat.END_OF_DOCUMENT in specials:
            named.setdefault("eos_token", chat.END_OF_DOCUMENT)
        return Tokenizer(backend, named, template)

    def _renumber(self, specials: int) -> Iterator[int]:
        """New tokens get the dropped tokens' ids, then ids above the old ones; the free ids after these."""
        names = {number: token for token, number in self.vocabulary.items()}
        made = [names[number] for number in range(self.old.vocab_size, self.next_id)]
        again = {token for token in made if token in self.gone}
        self.dropped = sorted(n for token, n in self.gone.items() if token not in again)
        fresh = len(made) - len(again) + specials
        if fresh < len(self.dropped):
            raise DataError(
                "the texts gave fewer new tokens than old ones were dropped, so ids would stay empty",
                wanted=f"at least {len(self.dropped)} new tokens",
                got=fresh,
                do="keep a larger share of the old vocabulary, or give more text",
            )
        free = chain(self.dropped, count(self.old.vocab_size))
        model = self.old.backend.model
        for token in made:
            self.vocabulary[token] = number = self.gone[token] if token in again else next(free)
            if token not in again:
                self.pieces[number] = [part.id for part in model.tokenize(token)]
        return free


def _in_order(ids: np.ndarray, last: np.ndarray, letter_of: np.ndarray) -> list[int]:
    """Ids without a letter, by the first line they occur in (lines end at `last`), then by id."""
    new, first = np.unique(np.where(letter_of[ids] < 0, ids, -1), return_index=True)
    new, first = new[new >= 0], first[new >= 0]
    return new[np.lexsort((new, np.searchsorted(last, first)))].tolist()


def _too_long(borders: np.ndarray) -> np.ndarray:
    """Further borders that cut runs longer than LONGEST_RUN tokens, so training stays linear."""
    places = np.arange(len(borders))
    starts = np.concatenate([[0], np.where(borders, places + 1, 0)[:-1]])
    within = places - np.maximum.accumulate(starts)
    return within % pretokenize.LONGEST_RUN == pretokenize.LONGEST_RUN - 1


def _written(numbers: np.ndarray, borders: np.ndarray) -> Iterator[str]:
    """Runs of letters as text, about CHUNK letters at a time."""
    ends = np.flatnonzero(borders) + 1
    places = np.searchsorted(ends, np.arange(CHUNK, len(numbers), CHUNK))
    cuts = np.unique(ends[places]) if len(places) else []
    for part, part_borders in zip(np.split(numbers, cuts), np.split(borders, cuts)):
        if len(part):
            yield letters.written(part, part_borders)
