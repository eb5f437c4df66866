"""A given BPE vocabulary grown for another script by continuing its merges; every old id stays.

    old tokenizer + texts of the language -> old ids of each pre-token -> letters (letters.py: one
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

With keep < 1 rare old tokens make room first (keep.py): their ids go to new tokens, lowest first. A
dropped token that the new merges build again gets its old id back.

Models with ignore_merges (Llama 3) look a whole pre-token up before they merge. That changes nothing
above: a new token holds a character of the script, so no other text can meet it there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from endonym.core.errors import DataError
from endonym.tokenizer import check as soundness
from endonym.tokenizer import keep as keeping
from endonym.tokenizer.corpus import Corpus, Segmenter
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.growth import Growth
from endonym.tokenizer.pretokenize import Ranges
from endonym.tokenizer.units import Script, Units


@dataclass(frozen=True)
class Extension:
    """The grown tokenizer, the old ids each new id is made of, and how it went.

    pieces:  new id -> ids of the old tokenizer
    dropped: old ids that no longer mean what they meant (keep < 1), in order
    figures: wanted and added (new tokens), characters (of them single characters), characters_skipped
             (their bytes are shared with another script), bytes_per_token_before and _after on the
             first megabyte of the texts it was made from. With keep < 1 also kept, dropped and
             restored (dropped tokens that the new merges built again). With `check` also check:
             label -> what compared() gives
    """

    tokenizer: Tokenizer
    pieces: dict[int, list[int]]
    old_vocab_size: int
    figures: dict[str, Any] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)

    def save(self, folder: Path | str) -> None:
        """The tokenizer's folder, with pieces.json beside tokenizer.json."""
        self.tokenizer.save(folder)
        state = {
            "old_vocab_size": self.old_vocab_size,
            "pieces": self.pieces,
            "dropped": self.dropped,
        }
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
    keep: float = 1.0,
    usage: Iterable[str] | None = None,
    check: Mapping[str, Sequence[str]] | None = None,
) -> Extension:
    """`old` grown to `size` tokens in all, learnt from `texts`.

    script:    code point ranges of the new language's script, e.g. [(0x0E00, 0x0E7F)] for Thai; its
               combining marks are then joined to their letters by the pre-tokenizer
    segment:   line -> words, asked at training only; no merge crosses a word
    specials:  control tokens to add at the end if absent; they count towards `size`. With ChatML's
               among them, a tokenizer without a chat template gets ours
    min_count: pairs and characters seen less often are not added
    keep:      share of the old tokens (bytes, <unk> and added tokens apart) that stay
    usage:     texts that say which: of everything the model must still read, in its proportions
               (None: `texts` and those of `check`). What they do not use goes first
    check:     label -> texts that should keep their ids; figures["check"] says how many do not

    size equal to the old vocabulary's, with keep = 1, is the identity. Where the texts do not yield
    enough, the tokenizer is smaller and figures["added"] < figures["wanted"].

    DataError: texts that are empty or hold nothing of the script; a size that leaves no room; a base
    that is no BPE or is broken (check.py); fewer new tokens than dropped ones.
    """
    texts = Corpus(texts)
    state = json.loads(old.backend.to_str())
    Units.of(state)
    soundness.check(state)
    vocabulary = old.backend.get_vocab(with_added_tokens=True)
    missing = [text for text in specials if text not in vocabulary]
    if usage is None:
        usage = chain(texts, *(check or {}).values())
    gone = keeping.lost(old, state, usage, keep)
    room = size - old.vocab_size - len(missing) + len(gone)
    if room < 0 or size < old.vocab_size:
        raise DataError(
            "the vocabulary asked for is smaller than the old one and its new control tokens",
            wanted=f"at least {old.vocab_size + max(0, len(missing) - len(gone))}",
            got=size,
        )
    if size == old.vocab_size and not gone:
        same = {"wanted": 0, "added": 0}
        return Extension(old, {}, old.vocab_size, same | _checked(old, old, check))
    growth = Growth(keeping.without(state, gone), old, Script(script), room, gone)
    if room:
        growth.add_characters(texts, min_count)
        growth.add_merges(texts, segment, min_count)
    tokenizer = growth.finished(missing)
    sample = list(_first(texts, 1_000_000))
    figures = {
        "wanted": size - old.vocab_size + len(growth.dropped),
        "added": len(growth.pieces),
        "characters": growth.characters,
        "characters_skipped": growth.skipped,
        "bytes_per_token_before": bytes_per_token(old, sample),
        "bytes_per_token_after": bytes_per_token(tokenizer, sample),
    }
    if gone:
        figures["kept"] = len(vocabulary) - len(growth.dropped)
        figures["dropped"] = len(growth.dropped)
        figures["restored"] = len(gone) - len(growth.dropped)
    figures |= _checked(old, tokenizer, check)
    return Extension(tokenizer, growth.pieces, old.vocab_size, figures, growth.dropped)


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """UTF-8 bytes that one token stands for, on average; 0 for no text."""
    tokens = sum(map(len, tokenizer.encode_batch(texts, literal=True)))
    return sum(len(text.encode()) for text in texts) / tokens if tokens else 0.0


def compared(old: Tokenizer, new: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """How many texts have other ids than before: texts, changed, first (the first of these, or None),
    bytes_per_token_before and _after."""
    texts = list(texts)
    before, after = old.encode_batch(texts, literal=True), new.encode_batch(texts, literal=True)
    changed = [text for text, a, b in zip(texts, before, after) if a != b]
    size = sum(len(text.encode()) for text in texts)
    return {
        "texts": len(texts),
        "changed": len(changed),
        "first": changed[0][:80] if changed else None,
        "bytes_per_token_before": size / max(1, sum(map(len, before))),
        "bytes_per_token_after": size / max(1, sum(map(len, after))),
    }


def _checked(
    old: Tokenizer, new: Tokenizer, check: Mapping[str, Sequence[str]] | None
) -> dict[str, Any]:
    if check is None:
        return {}
    return {"check": {label: compared(old, new, texts) for label, texts in check.items()}}


def _first(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return
