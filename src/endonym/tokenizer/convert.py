"""Vocabularies that keep no merges as a Hugging Face tokenizer.json: SentencePiece, tiktoken, llama2.c.

SentencePiece BPE (and llama2.c after it) and tiktoken keep a rank for each piece and no merges: they
join, again and again, the two neighbours whose concatenation is the piece of the best rank, leftmost
first among equals. A tokenizer.json wants merges in order. One merge a piece is enough, the last
step of joining the piece's own letters:

    merge(piece) = the two parts from which the piece, joined alone, is made at last
    order        = rank of the result

When a text's joining arrives at two neighbours that make a piece, nothing was joined across the
piece's borders, so all that was joined inside them is what joining the piece alone does: no other
split of it is ever met, and the two procedures agree on every text. A piece that its own letters do
not lead to gets no merge: no text leads to it either. (tiktoken looks a whole pre-token up first,
which can find such a piece; ignore_merges says the same to the tokenizers library.) So the ranks of
qwen.tiktoken give Qwen2's published merges.txt line by line. transformers' own converters write
every split of a piece instead, about twice as many merges, which can differ where a piece overlaps
itself.

The other rules of Llama: a space is written U+2581 and one is put before the text; characters that
are no piece are written as bytes <0x00> to <0xFF>; <s> opens a text when special tokens are asked for.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.tokenizer.families import Family
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import SPACE, byte_letters

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
    model = models.BPE(
        vocab=vocabulary,
        merges=merges({piece: -score for piece, score in scores.items()}),
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = _spaced(model, [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)], True)
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL.values()])
    _open_with(backend, "<s>")
    return Tokenizer(backend, CONTROL, None)


def from_sentencepiece(raw: bytes, where: object = None) -> Tokenizer:
    """The tokenizer of a SentencePiece model file (BPE or unigram); ids are the model's own.

    As SentencePiece: its normalisation map, the space put before a text, the removal of superfluous
    spaces, byte fallback. Control pieces become special tokens; a BPE model with a piece <s> opens a
    text with it when special tokens are asked for (Llama, Mistral). User-defined pieces become added
    tokens. Two differences stay: text after a user-defined piece gets a space put before it once more,
    and a unigram model takes a control piece's letters in a text ("<s>") for the piece.
    Word and character models, and spaces written as suffixes, pieces out of use, are refused.
    """
    proto = parsed(raw)
    if proto is None:
        raise DataError("the file is no SentencePiece model", where=where)
    spec, rules, kind = proto.trainer_spec, proto.normalizer_spec, proto.SentencePiece
    if spec.model_type not in (spec.BPE, spec.UNIGRAM):
        name = spec.ModelType.Name(spec.model_type)
        raise DataError(
            "a SentencePiece model of another kind", where=where, wanted="BPE or UNIGRAM", got=name
        )
    if any(piece.type == kind.UNUSED for piece in proto.pieces):
        raise DataError("a SentencePiece model with pieces out of use", where=where)
    if spec.treat_whitespace_as_suffix or not rules.escape_whitespaces:
        raise DataError(
            "a SentencePiece model that marks spaces otherwise",
            where=where,
            wanted=f"a space written {SPACE} before its word",
        )
    named = {"bos_token": spec.bos_piece, "eos_token": spec.eos_piece, "unk_token": spec.unk_piece}
    types = {piece.piece: piece.type for piece in proto.pieces}
    named = {name: piece for name, piece in named.items() if types.get(piece) in _RESERVED}
    unknown = next((p.piece for p in proto.pieces if p.type == kind.UNKNOWN), None)
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    if spec.model_type == spec.BPE:
        ranks = {p.piece: -p.score for p in proto.pieces if p.type == kind.NORMAL}
        pairs = merges(ranks)
        _check_parts(ranks, pairs, where)
        model = models.BPE(
            vocab=vocabulary,
            merges=pairs,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=spec.byte_fallback,
        )
    else:
        scores = [(piece.piece, piece.score) for piece in proto.pieces]
        model = models.Unigram(scores, vocabulary.get(unknown), spec.byte_fallback)
    backend = _spaced(model, _normalisation(rules), rules.add_dummy_prefix)
    control = [p.piece for p in proto.pieces if p.type in (kind.UNKNOWN, kind.CONTROL)]
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in control])
    own = [p.piece for p in proto.pieces if p.type == kind.USER_DEFINED]
    backend.add_tokens([AddedToken(text, normalized=False, special=False) for text in own])
    if spec.model_type == spec.BPE and types.get(spec.bos_piece) == kind.CONTROL:
        _open_with(backend, spec.bos_piece)
    return Tokenizer(backend, named, None)


def from_ranks(ranks: Mapping[bytes, int], family: Family) -> Tokenizer:
    """The tokenizer of tiktoken ranks (bytes of a token -> its id), split as `family` splits.

    The family's special tokens follow with the ids that it gives them.
    """
    letters = byte_letters()[0]
    spelt = {raw: "".join(map(letters.__getitem__, raw)) for raw in ranks}
    vocabulary = {spelt[raw]: number for raw, number in ranks.items()}
    pairs = [(spelt[left], spelt[right]) for left, right in merges(ranks)]
    special = family.special_ids(len(ranks))
    # in the model too: ids given by tokenizers itself would have no gaps, and some families have
    model = models.BPE(vocab=vocabulary | special, merges=pairs, ignore_merges=True)
    return byte_level(
        model, family, [AddedToken(t, normalized=False, special=True) for t in special]
    )


def byte_level(model: models.BPE, family: Family, added: list[AddedToken]) -> Tokenizer:
    """A byte-level model with its family's normaliser and split pattern, and these added tokens."""
    backend = Backend(model)
    if family.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = family.pre_tokenizer()
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(added)
    known = backend.get_vocab(with_added_tokens=True)
    named = {name: text for name, text in family.named.items() if text in known}
    if family.opens and "bos_token" in named:
        _open_with(backend, named["bos_token"])
    return Tokenizer(backend, named, None)


def parsed(raw: bytes) -> Any:
    """A SentencePiece ModelProto out of a file's bytes, or None if they are none."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(raw)
    except DecodeError:
        return None
    return proto if len(proto.pieces) else None


def merges(ranks: Mapping[Any, float]) -> list[tuple[Any, Any]]:
    """Merges in rank order (lowest first) of pieces given as strings or bytes, as said at the head.

    Of equal rank the longest piece goes first: so a run of spaces, whose pieces have one score in
    Llama's and Mistral's models, grows from its left end as it does there.
    """
    found = []
    for piece in sorted(ranks, key=lambda piece: (ranks[piece], -len(piece))):
        pair = last_join(piece, ranks)
        if pair is not None and pair[0] in ranks and pair[1] in ranks:
            found.append(pair)
    return found


def last_join(piece: Any, ranks: Mapping[Any, float]) -> tuple[Any, Any] | None:
    """The two parts that a piece, joined alone, is made of last; None for one letter and if stuck."""
    parts = [piece[at : at + 1] for at in range(len(piece))]
    while len(parts) > 2:
        best, place = None, 0
        for at in range(len(parts) - 1):
            rank = ranks.get(parts[at] + parts[at + 1])
            if rank is not None and (best is None or rank < best):
                best, place = rank, at
        if best is None:
            return None
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _check_parts(ranks: Mapping[str, float], pairs: list[tuple[str, str]], where: object) -> None:
    """SentencePiece can join letters that are no pieces themselves; merges cannot."""
    made = {left + right for left, right in pairs}
    rest = (piece for piece in ranks if len(piece) > 1 and piece not in made)
    lost = next((piece for piece in rest if last_join(piece, ranks)), None)
    if lost is not None:
        raise DataError(
            "a piece is made of letters that are no pieces", where=where, got=repr(lost)
        )


_RESERVED = (2, 3)  # UNKNOWN and CONTROL of sentencepiece_model.proto


def _normalisation(rules: Any) -> list[normalizers.Normalizer]:
    """SentencePiece's NormalizerSpec in the steps of the tokenizers library."""
    steps = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return [*steps, normalizers.Replace(" ", SPACE)]


def _spaced(model: models.Model, steps: list[normalizers.Normalizer], prefix: bool) -> Backend:
    """A backend for pieces that write a space as U+2581, with the decoder that takes it back."""
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(steps)
    taken_back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(taken_back + [decoders.Strip(" ", 1, 0)] * prefix)
    return backend


def _open_with(backend: Backend, token: str) -> None:
    """The token stands before a text where special tokens are asked for."""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token} $B",
        special_tokens=[(token, backend.token_to_id(token))],
    )


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
