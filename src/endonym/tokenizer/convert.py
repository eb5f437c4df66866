"""A Hugging Face tokenizer.json out of SentencePiece BPE pieces and scores.

SentencePiece (and llama2.c after it) keeps no merges: it joins, again and again, the two
neighbours whose concatenation is the piece with the best score, leftmost first among equals. A
tokenizer.json wants merges in order. They are recovered by listing, piece by piece from the best
score down, every split of the piece into two other pieces; then the rank of a merge is the rank of
its result, and the two procedures agree. (One exception is possible in principle, a piece that
overlaps itself through different splits, such as "aa" + "a" and "a" + "aa" in a run of a's: there
the longer left part goes first, as the leftmost would.)

The other rules of Llama: a space is written U+2581 and one is put before the text; characters that
are no piece are written as bytes <0x00> to <0xFF>; <s> opens a text when special tokens are asked for.
"""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, processors
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import SPACE

CONTROL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def from_folder(folder: Path | str) -> Tokenizer:
    """The tokenizer of a checkpoint folder that keeps it as vocab_scores.json: [{id, piece, score}, ...]."""
    file = Path(folder) / "vocab_scores.json"
    if not file.is_file():
        raise DataError("there are no pieces to convert", where=file, wanted="vocab_scores.json")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        pieces = [(int(row["id"]), str(row["piece"]), float(row["score"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the pieces cannot be read",
            where=file,
            wanted="a list of {id, piece, score}",
            got=f"{type(error).__name__}: {error}",
        ) from None
    return from_pieces(pieces)


def from_pieces(pieces: list[tuple[int, str, float]]) -> Tokenizer:
    """A tokenizer of (id, piece, score) triples; ids stay as they are.

    Pieces may write spaces as spaces (llama2.c) or as U+2581, and control pieces with line ends
    round them ("\\n<s>\\n", llama2.c).
    """
    named = set(CONTROL.values())
    vocabulary: dict[str, int] = {}
    scores: dict[str, float] = {}
    for number, piece, score in pieces:
        is_control = piece.strip("\n") in named
        text = piece.strip("\n") if is_control else piece.replace(" ", SPACE)
        if text in vocabulary:
            raise DataError(
                "two pieces are the same",
                where=f"ids {vocabulary[text]} and {number}",
                got=repr(piece),
            )
        vocabulary[text] = number
        if not is_control and not BYTE.fullmatch(text):
            scores[text] = score
    _check(vocabulary)
    backend = Backend(
        models.BPE(
            vocab=vocabulary,
            merges=merges(scores),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL.values()])
    start = ("<s>", vocabulary["<s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[start]
    )
    return Tokenizer(backend, CONTROL, None)


def merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Merges in rank order: pieces by falling score, for each every split into two pieces.

    A split's parts need not come before their result in rank: a pair that never stands side by
    side is never merged, in either procedure.
    """
    found: list[tuple[str, str]] = []
    for piece in sorted(scores, key=lambda text: -scores[text]):
        splits = ((piece[:at], piece[at:]) for at in range(len(piece) - 1, 0, -1))
        found += [(left, right) for left, right in splits if left in scores and right in scores]
    return found


def _check(vocabulary: dict[str, int]) -> None:
    wanted: list[Any] = [*CONTROL.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    absent = [text for text in wanted if text not in vocabulary]
    if absent:
        raise DataError(
            "the pieces are not those of a SentencePiece BPE with byte fallback",
            wanted="<unk>, <s>, </s> and <0x00> to <0xFF>",
            got=f"{len(absent)} of them are absent, the first {absent[0]}",
        )
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise DataError("the ids of the pieces have gaps", wanted=f"0 to {len(vocabulary) - 1}")
