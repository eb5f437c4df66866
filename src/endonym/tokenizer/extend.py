"""A given BPE vocabulary grown for another script by continuing its merges; every old id stays.

    old tokenizer + texts of the language -> old ids of each pre-token -> letters (one private-use
    character an id) -> the stock BPE trainer over those letters -> its merges, translated back and
    appended -> a stock tokenizer.json

Appended merges rank after all old ones: the old tokenizer runs as before, the new merges go on from
its result. (The same tokens as AddedTokens, which many guides advise, cost nearly twice the tokens:
3.6 bytes a token against 6.6.) With `script` given, no merge is learnt whose result could occur in
text without that script, so all other text keeps its ids exactly; for a Latin-script language leave
it out, and merges may change how old text is cut.

Characters of the script come first: byte-level vocabularies get the merges that join each
character's bytes; SentencePiece vocabularies with byte fallback get the characters as tokens, whose
pieces are the byte tokens. For every new id its OLD ids are given, for the mean that initialises
its embedding (JAI-1: mean of the pieces under the old tokenizer).
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from endonym.core.errors import DataError
from endonym.tokenizer import chat, pretokenize
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.pretokenize import Ranges
from endonym.tokenizer.train import Segmenter
from endonym.tokenizer.units import Script, Units

LETTERS = [range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900)]
"""Unicode's private-use areas: 137,468 letters, one for each old id that the texts use."""
SPARE = 1.1
"""The trainer is asked for this much more than needed: a merge that rebuilds an old token adds none."""


@dataclass(frozen=True)
class Extension:
    """The grown tokenizer, the old ids each new id is made of, and how it went.

    figures: wanted and added (ids), characters (of them single characters), characters_skipped
    (their bytes are shared with another script), bytes_per_token_before and _after on the first
    megabyte of the texts it was made from.
    """

    tokenizer: Tokenizer
    pieces: dict[int, list[int]]
    old_vocab_size: int
    figures: dict[str, float] = field(default_factory=dict)

    def save(self, folder: Path | str) -> None:
        """The tokenizer's folder, with pieces.json beside tokenizer.json."""
        self.tokenizer.save(folder)
        state = {"old_vocab_size": self.old_vocab_size, "pieces": self.pieces}
        (Path(folder) / "pieces.json").write_text(json.dumps(state) + "\n", encoding="utf-8")


def read_pieces(folder: Path | str) -> tuple[int, dict[int, list[int]]]:
    """(old vocabulary size, new id -> old ids) as Extension.save wrote them."""
    file = Path(folder) / "pieces.json"
    if not file.is_file():
        raise DataError("the tokenizer is not an extended one", where=file, wanted="pieces.json")
    state = json.loads(file.read_text(encoding="utf-8"))
    return state["old_vocab_size"], {int(new): old for new, old in state["pieces"].items()}


def extend(
    old: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    script: Ranges | None = None,
    segment: Segmenter | None = None,
    specials: Sequence[str] = (),
    min_count: int = 2,
) -> Extension:
    """`old` grown to `size` tokens in all, learnt from `texts`.

    script:    code point ranges of the new language's script, e.g. [(0x0E00, 0x0E7F)] for Thai; its
               combining marks are then joined to their letters by the pre-tokenizer
    segment:   line -> words, asked at training only; no merge crosses a word
    specials:  control tokens to add at the end if absent; they count towards `size`. With ChatML's
               among them, a tokenizer without a chat template gets ours
    min_count: pairs and characters seen less often are not added

    size equal to the old vocabulary's is the identity. Where the texts do not yield enough, the
    tokenizer is smaller and figures["added"] < figures["wanted"].
    """
    if iter(texts) is texts:  # an iterator would be empty at the second reading
        texts = list(texts)
    state = json.loads(old.backend.to_str())
    vocabulary = old.backend.get_vocab(with_added_tokens=True)
    missing = [text for text in specials if text not in vocabulary]
    room = size - old.vocab_size - len(missing)
    if room < 0:
        raise DataError(
            "the vocabulary asked for is smaller than the old one and its new control tokens",
            wanted=f"at least {old.vocab_size + len(missing)}",
            got=size,
        )
    if size == old.vocab_size:
        return Extension(old, {}, old.vocab_size, {"wanted": 0, "added": 0})
    growth = _Growth(state, old, Script(script), room)
    if room:
        growth.add_characters(texts, min_count)
        growth.add_merges(texts, segment, min_count)
    tokenizer = growth.finished(missing)
    added = tokenizer.vocab_size - old.vocab_size
    sample = list(_first(texts, 1_000_000))
    return Extension(
        tokenizer,
        growth.pieces,
        old.vocab_size,
        {
            "wanted": size - old.vocab_size,
            "added": added,
            "characters": growth.characters,
            "characters_skipped": growth.skipped,
            "bytes_per_token_before": bytes_per_token(old, sample),
            "bytes_per_token_after": bytes_per_token(tokenizer, sample),
        },
    )


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """UTF-8 bytes that one token stands for, on average; 0 for no text."""
    tokens = sum(map(len, tokenizer.encode_batch(texts, literal=True)))
    return sum(len(text.encode()) for text in texts) / tokens if tokens else 0.0


class _Growth:
    """A tokenizer.json under extension: vocabulary, merges and pieces grow together."""

    def __init__(self, state: dict, old: Tokenizer, script: Script, room: int):
        self.state, self.old, self.script, self.room = state, old, script, room
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

    def old_ids(self, token: str) -> list[int]:
        number = self.vocabulary[token]
        return self.pieces.get(number, [number])

    def new_token(self, token: str, pieces: list[int]) -> None:
        self.vocabulary[token] = self.next_id
        self.pieces[self.next_id] = pieces
        self.next_id, self.room = self.next_id + 1, self.room - 1

    def merge(self, left: str, right: str) -> None:
        """One more merge; a new token where its result is none yet."""
        if (left, right) in self.known:
            return
        if left + right not in self.vocabulary:
            self.new_token(left + right, self.old_ids(left) + self.old_ids(right))
        self.known.add((left, right))
        self.merges.append((left, right))

    def backend(self) -> Backend:
        self.state["model"]["merges"] = [list(pair) for pair in self.merges]
        return Backend.from_str(json.dumps(self.state))

    # --- characters -----------------------------------------------------------------------------

    def add_characters(self, texts: Iterable[str], min_count: int) -> None:
        """One token for each character of the script that the texts use, most frequent first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        model = self.old.backend.model
        for character, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            if count < min_count or self.room <= 0:
                break
            if not self._lacks(character):
                continue
            if self.units.byte_fallback:
                if character not in self.vocabulary:
                    byte_tokens = [f"<0x{byte:02X}>" for byte in character.encode()]
                    self.new_token(character, [self.vocabulary[text] for text in byte_tokens])
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

    # --- merges ---------------------------------------------------------------------------------

    def add_merges(self, texts: Iterable[str], segment: Segmenter | None, min_count: int) -> None:
        lines, letters = self._as_letters(texts, segment)
        if self.room <= 0 or not lines:
            return
        trained = Backend(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
        trainer = trainers.BpeTrainer(
            vocab_size=len(letters) + int(self.room * SPARE) + 64,
            min_frequency=min_count,
            special_tokens=[],
            show_progress=False,
        )
        trained.train_from_iterator(lines, trainer)
        names = {number: token for token, number in self.vocabulary.items()}
        spelt = {letter: names[number] for number, letter in letters.items()}
        for left, right in json.loads(trained.to_str())["model"]["merges"]:
            if self.room <= 0:
                break
            self.merge("".join(map(spelt.get, left)), "".join(map(spelt.get, right)))

    def _as_letters(
        self, texts: Iterable[str], segment: Segmenter | None
    ) -> tuple[list[str], dict[int, str]]:
        """Lines of the texts as private-use letters, a space wherever no merge may go."""
        blind = Tokenizer(self.backend(), self.old.named)._literal[1]
        tables = self.units.tables(self.vocabulary, self.state["added_tokens"], self.script)
        letter_of = np.full(self.next_id, -1, dtype=np.int64)
        free = (code for area in LETTERS for code in area)
        out: list[str] = []
        for batch in _line_batches(texts, self.script):
            for line, found in zip(batch, blind.encode_batch(batch)):
                ids = np.asarray(found.ids, dtype=np.int64)
                if len(ids) < 2:
                    continue
                for number in np.unique(ids[letter_of[ids] < 0]).tolist():
                    code = next(free, None)
                    if code is None:
                        raise DataError(
                            "the texts use more old tokens than there are private-use letters",
                            wanted=sum(map(len, LETTERS)),
                            do="extend from texts of the new language alone",
                        )
                    letter_of[number] = code
                borders = tables.borders(ids, np.asarray(found.word_ids, dtype=np.int64))
                if segment is not None:
                    borders |= tables.word_ends(ids, line, blind, segment)
                borders |= _too_long(borders)
                spaced = np.insert(letter_of[ids], np.flatnonzero(borders) + 1, ord(" "))
                out.append(spaced.astype("<u4").tobytes().decode("utf-32-le"))
        used = np.flatnonzero(letter_of >= 0).tolist()
        return out, {number: chr(letter_of[number]) for number in used}

    # --- end ------------------------------------------------------------------------------------

    def finished(self, specials: Sequence[str]) -> Tokenizer:
        """The grown tokenizer, with `specials` as its last tokens."""
        for text in specials:
            self.pieces[self.next_id] = self.old.encode(text, literal=True)
            self.vocabulary[text] = self.next_id
            self.state["added_tokens"].append(
                {
                    "id": self.next_id,
                    "content": text,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            )
            self.next_id += 1
        backend, template = self.backend(), self.old.template
        if template is None and {chat.TURN_START, chat.TURN_END} <= set(specials):
            template = chat.CHATML
        named = dict(self.old.named)
        if chat.END_OF_DOCUMENT in specials:
            named.setdefault("eos_token", chat.END_OF_DOCUMENT)
        return Tokenizer(backend, named, template)


def _too_long(borders: np.ndarray) -> np.ndarray:
    """Further borders that cut runs longer than LONGEST_RUN tokens, so training stays linear."""
    places = np.arange(len(borders))
    starts = np.concatenate([[0], np.where(borders, places + 1, 0)[:-1]])
    within = places - np.maximum.accumulate(starts)
    return within % pretokenize.LONGEST_RUN == pretokenize.LONGEST_RUN - 1


def _line_batches(texts: Iterable[str], script: Script, characters: int = 1 << 20):
    """Lines with something of the script in them, about `characters` at a time."""
    batch, weight = [], 0
    for text in texts:
        for line in text.splitlines(keepends=True):
            if script.occurs(line):
                batch.append(line)
                weight += len(line)
                if weight >= characters:
                    yield batch
                    batch, weight = [], 0
    if batch:
        yield batch


def _first(texts: Iterable[str], characters: int):
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return
