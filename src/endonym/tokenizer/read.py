"""A Tokenizer out of the files that people have, told by what is in them and not by their names.

    tokenizer.json                    any model of the tokenizers library, or its folder
    vocab.json + merges.txt           byte-level BPE; the folder, or either file
    SentencePiece .model              BPE and unigram
    tiktoken rank file                cl100k_base.tiktoken, qwen.tiktoken, Llama 3's tokenizer.model
    vocab_scores.json                 SentencePiece pieces and scores

The last four do not say how text is split before merging. Each family's own pattern and special
tokens are taken: by the class in tokenizer_config.json, or by the number of ranks (families.py).
Where neither tells, `pattern` must. Every file goes through check.py. No code of a folder is run and
nothing is unpickled.
"""

import base64
import binascii
import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, models

from endonym.core.errors import DataError, RecipeError
from endonym.tokenizer import convert, families, files
from endonym.tokenizer.backend import MAX_TOKENIZER, check_size, read_backend
from endonym.tokenizer.check import check
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import byte_letters

RANK = re.compile(rb"([A-Za-z0-9+/]*={0,2}) (\d+)\s*")
KINDS = "tokenizer.json, vocab.json with merges.txt, a SentencePiece model or a tiktoken rank file"
PREFERRED = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab_scores.json")


def read(path: str | Path, pattern: str | None = None) -> Tokenizer:
    """The tokenizer of a folder or a file in any of the forms above.

    pattern: a family's name (families.FAMILIES: gpt2, p50k, cl100k, o200k, llama3, llama4, qwen) or
    a split pattern, for a rank file or a vocab.json whose family cannot be told. The other forms say
    it themselves: a pattern given for them is an error.

    A rank file of Llama 3 or 4, Qwen or tiktoken gets its family's special tokens where the number
    of ranks is the family's; otherwise it has none.
    """
    file = _file(Path(path))
    raw = _bytes(file)
    kind, content = _told(raw, file)
    if kind in ("ranks", "pair"):
        given = families.family(pattern) if pattern else None
        return _ranks(raw, file, given) if kind == "ranks" else _pair(file, given)
    if pattern:
        raise RecipeError(
            "a split pattern was given for a file that has its own", where=file, got=pattern
        )
    if kind == "SentencePiece":
        return convert.from_sentencepiece(raw, file)
    if kind == "scores":
        return convert.from_folder(file.parent)
    return _json(content, file)


def _file(path: Path) -> Path:
    """The file that a path means: itself, or the one that a folder's tokenizer is kept in."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError("there is no such file or folder", where=path, wanted=KINDS)
    for name in PREFERRED:
        if (path / name).is_file():
            return path / name
    others = [p for p in sorted(path.iterdir()) if ".model" in p.name or p.suffix == ".tiktoken"]
    if len(others) == 1:
        return others[0]
    raise DataError(
        "several tokenizers in one folder" if others else "there is no tokenizer in this folder",
        where=path,
        wanted=KINDS,
        got=", ".join(p.name for p in (others or sorted(path.iterdir()))[:8]) or "no files",
        do="name the file" if others else None,
    )


def _bytes(file: Path) -> bytes:
    check_size(file, MAX_TOKENIZER)
    return file.read_bytes()


def _told(raw: bytes, file: Path) -> tuple[str, Any]:
    """What kind of file these bytes are, and the parsed JSON if they are that."""
    beginning = raw[:64].lstrip()
    if beginning[:1] in (b"{", b"["):
        found = _parsed(raw, file)
        if isinstance(found, dict) and isinstance(found.get("model"), dict):
            return "json", found
        if isinstance(found, dict) and found and all(isinstance(n, int) for n in found.values()):
            return "pair", None
        if isinstance(found, list) and found and "piece" in found[0]:
            return "scores", None
    elif file.name == "merges.txt":
        return "pair", None
    elif RANK.fullmatch(raw[:4096].partition(b"\n")[0]):
        return "ranks", None
    elif convert.parsed(raw) is not None:
        return "SentencePiece", None
    pickled = raw[:1] == b"\x80" or raw[:2] == b"PK"
    raise DataError(
        "a pickle, which is never loaded" if pickled else "not a tokenizer of a known form",
        where=file,
        wanted=KINDS,
        got="an empty file" if not raw else f"a file that begins {raw[:24]!r}",
    )


def _parsed(raw: bytes, file: Path) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError("the file is no JSON", where=file, got=error) from None


def _json(state: dict, file: Path) -> Tokenizer:
    check(state, file)
    is_folder = file.name == "tokenizer.json"
    tokenizer = Tokenizer.load(file.parent) if is_folder else Tokenizer(read_backend(file), {})
    for token in state.get("added_tokens") or []:
        number = tokenizer.backend.token_to_id(token["content"])
        if number != token["id"]:
            raise DataError(
                "an added token would get another id than the file says",
                where=f"{file}: token {token['content']!r}",
                wanted=token["id"],
                got=number,
                do="number added tokens on from the vocabulary, or put them into it",
            )
    return tokenizer


def _ranks(raw: bytes, file: Path, given: families.Family | None) -> Tokenizer:
    """A tiktoken rank file: on each line the bytes of a token in base64, and its id."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(raw.splitlines(), start=1):
        match = RANK.fullmatch(line)
        try:
            token = base64.b64decode(match[1], validate=True) if match else None
        except binascii.Error:
            token = None
        if not match or not token:
            raise DataError(
                "a line of the rank file cannot be read",
                where=f"{file}:{number}",
                wanted="bytes in base64, a space, a rank",
                got=repr(line[:60]),
            )
        if token in ranks:
            raise DataError(
                "a token stands twice in the rank file", where=f"{file}:{number}", got=repr(token)
            )
        ranks[token] = int(match[2])
    family = given or families.by_ranks(len(ranks))
    if family is None:
        raise DataError(
            "a rank file of an unknown family: how it splits text cannot be told",
            where=file,
            wanted=", ".join(f"{f.name} ({f.ranks})" for f in families.FAMILIES.values()),
            got=f"{len(ranks)} ranks",
            do="name its family or its split pattern: read(path, pattern=...)",
        )
    letters = byte_letters()[0]
    absent = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if absent:
        raise DataError(
            f"{len(absent)} bytes are no token", where=file, got=f"the first 0x{absent[0]:02X}"
        )
    spelt = {"".join(letters[byte] for byte in token): rank for token, rank in ranks.items()}
    special = family.special_ids(len(ranks))
    added = [{"content": text, "id": rank} for text, rank in special.items()]
    check({"model": {"vocab": spelt}, "added_tokens": added}, file)
    return convert.from_ranks(ranks, family)


def _pair(file: Path, given: families.Family | None) -> Tokenizer:
    """vocab.json and merges.txt, which lie side by side, with the folder's own added tokens."""
    folder = file.parent
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise DataError(
                f"half a tokenizer: there is no {name} beside it", where=file, wanted=KINDS
            )
    vocabulary = _parsed(_bytes(folder / "vocab.json"), folder / "vocab.json")
    lines = _bytes(folder / "merges.txt").decode("utf-8", "replace").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    config = files.read_config(folder)
    family = given or _family(config, len(vocabulary), folder)
    added = _added(folder, config, vocabulary, family)
    ids = {token["content"]: token["id"] for token in added}
    check({"model": {"vocab": vocabulary, "merges": merges}, "added_tokens": added}, folder)
    # in the model too, so that every added token keeps the id that the folder gives it
    model = models.BPE(vocab=vocabulary | ids, merges=merges)
    tokens = [AddedToken(**{k: v for k, v in t.items() if k != "id"}) for t in added]
    made = convert.byte_level(model, family, tokens)
    named = files.named_tokens(config, folder) or made.named
    return Tokenizer(made.backend, named, files.read_template(folder, config))


def _added(folder: Path, config: dict, vocabulary: dict, family: families.Family) -> list[dict]:
    """The folder's added tokens with ids and flags; the family's, where the folder lists none."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    listed = config.get("added_tokens_decoder") or {}
    if listed:
        found = [flags | {"special": False} | token | {"id": int(n)} for n, token in listed.items()]
    else:
        plain = files.read_json(folder / "added_tokens.json")
        named = set(files.named_tokens(config, folder).values())
        more = config.get("additional_special_tokens") or []
        named |= {files.content(token, folder) for token in more}
        named |= {text for text in family.special if text in vocabulary}
        ids = {text: vocabulary[text] for text in named if text in vocabulary} | plain
        found = [flags | {"content": t, "id": n, "special": t in named} for t, n in ids.items()]
    return sorted(found, key=lambda token: token["id"])


def _family(config: dict, size: int, folder: Path) -> families.Family:
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    if name in families.CLASSES:
        return families.FAMILIES[families.CLASSES[name]]
    for family in families.FAMILIES.values():
        if size in (family.ranks, family.ranks + len(family.special)):
            return family
    raise DataError(
        "vocab.json and merges.txt of an unknown family: how it splits text cannot be told",
        where=folder,
        wanted=f"tokenizer_class in tokenizer_config.json: {', '.join(families.CLASSES)}",
        got=name or f"no class, and {size} tokens",
        do="name its family or its split pattern: read(path, pattern=...)",
    )
