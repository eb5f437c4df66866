"""Superwords: a BPE vocabulary that goes on merging across spaces (SuperBPE, arXiv 2503.13423).

    stage 1   ordinary BPE up to t tokens: no merge crosses a word (train)
    stage 2   the same merges go on up to T tokens over whole phrases (grow)

Stage 1 encodes the texts, its tokens are written as letters (letters.py), the stock trainer learns
merges of them within phrases, and these are appended: a stock tokenizer.json, no fork. Digits,
punctuation, line ends and indentation part in stage 2 as in stage 1 (pretokenize.phrases), so every
text takes at most as many tokens as under stage 1, and stage 1's tokens keep their ids.

Superwords are capped at four words: usual in re-implementations, and not checked in the paper. A word
is a piece that begins with a space, or what stands before the first. In a script without spaces that
would be a whole clause. With `segment` given, its words are counted: stage 1 then ends merges at words
of the dictionary, and superwords are up to four of these. Without it, stage 1 has already learnt across
words of such a script, and stage 2 adds only what crosses spaces.

A prompt that ends within a superword is cut otherwise than the same text going on. And tokens that
differ in length make losses per token incomparable: compare bits per byte.
"""

import json
import re
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders

from endonym.core.errors import DataError
from endonym.tokenizer import corpus, letters, pretokenize
from endonym.tokenizer.corpus import Segmenter
from endonym.tokenizer.folder import Tokenizer

SPARE = 1.25
"""The trainer is asked for this much more than needed: merges of too many words are left out, and the
same token can come of two merges."""
BATCH = 1 << 20
"""Characters that are encoded at a time."""


def grow(
    stage1: Tokenizer,
    texts: Iterable[str],
    vocab_size: int,
    *,
    words_at_most: int = 4,
    segment: Segmenter | None = None,
    min_count: int = 2,
) -> Tokenizer:
    """`stage1` (made by train) grown to at most `vocab_size` tokens by merges across words.

    Its pre-tokenizer is then the loose one. vocab_size equal to stage 1's gives stage 1 itself.
    Fewer tokens come out where the texts hold no more pairs that occur `min_count` times. The texts
    are read once or twice; their phrases are held as counts (sample large corpora: corpus.Corpus).
    """
    room = vocab_size - stage1.vocab_size
    if room < 0 or words_at_most < 2:
        raise DataError(
            "superwords need room to grow and at least two words",
            wanted=f"a vocabulary of at least {stage1.vocab_size}, words_at_most of at least 2",
            got=f"a vocabulary of {vocab_size}, words_at_most {words_at_most}",
        )
    if room == 0:
        return stage1
    texts = list(texts) if iter(texts) is texts else texts
    state = json.loads(stage1.backend.to_str())
    state["pre_tokenizer"] = _loosened(state["pre_tokenizer"])
    reader, old = Backend.from_str(json.dumps(state)), state["model"]
    reader.encode_special_tokens = True  # control strings in texts are ordinary characters
    asked = int(room * SPARE) + 64
    while True:
        learnt = letters.merges(_phrases(reader, texts), range(stage1.vocab_size), asked, min_count)
        state["model"], added = _appended(
            old, learnt, stage1.vocab_size, room, words_at_most, segment
        )
        if added == room or len(learnt) < asked:  # enough, or no more in these texts
            return Tokenizer(Backend.from_str(json.dumps(state)), stage1.named, stage1.template)
        asked *= 2


def words_of(text: str, segment: Segmenter | None = None) -> int:
    """Words that a token's text touches, the ends of others included."""
    if segment is not None and not text.isascii():
        return sum(not word.isspace() for word in segment(text))
    return text.count(" ") + (not text.startswith(" "))


def _phrases(reader: Backend, texts: Iterable[str]) -> Iterator[str]:
    """Texts as letters of the reader's ids, a space after each pre-token."""
    for batch in _batches(corpus.lines(texts)):
        for found in reader.encode_batch(batch):
            pre_tokens = np.asarray(found.word_ids, dtype=np.int64)
            ends = np.append(pre_tokens[1:] != pre_tokens[:-1], True)
            yield letters.written(np.asarray(found.ids, dtype=np.int64), ends)


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _appended(
    model: dict,
    learnt: list[tuple[list[int], list[int]]],
    first: int,
    room: int,
    words_at_most: int,
    segment: Segmenter | None,
) -> tuple[dict, int]:
    """The model with at most `room` tokens more, ids from `first` on, and how many they are.

    A merge of too many words is left out, and with it all that is made of its result. One whose
    result another merge has made already adds no token but is a merge all the same.
    """
    vocabulary, merges, spoken = dict(model["vocab"]), list(model["merges"]), decoders.ByteLevel()
    names = {number: token for token, number in vocabulary.items()}
    next_id = first
    for ids_left, ids_right in learnt:
        if next_id - first == room:
            break
        left, right = "".join(map(names.get, ids_left)), "".join(map(names.get, ids_right))
        if left not in vocabulary or right not in vocabulary:
            continue
        if left + right not in vocabulary:
            if words_of(spoken.decode([left + right]), segment) > words_at_most:
                continue
            vocabulary[left + right] = next_id
            next_id += 1
        merges.append([left, right])
    return model | {"vocab": vocabulary, "merges": merges}, next_id - first


def _loosened(pre_tokenizer: dict | None) -> dict:
    """train's pre-tokenizer with phrases() in the place of words()."""
    parts = (pre_tokenizer or {}).get("pretokenizers") or [{}]
    pattern = parts[0].get("pattern", {}).get("Regex", "")
    longest = re.search(r"\{1,(\d+)\}", pattern)
    if longest is None or pattern != pretokenize.words(int(longest[1])):
        raise DataError(
            "superwords are grown on a vocabulary that was trained here",
            wanted=f"the split pattern {pretokenize.words()}",
            got=pattern or "no split pattern of ours",
            do="train stage 1 first: endonym.tokenizer.train.train",
        )
    split = parts[0] | {"pattern": {"Regex": pretokenize.phrases(int(longest[1]))}}
    return pre_tokenizer | {"pretokenizers": [split, *parts[1:]]}
