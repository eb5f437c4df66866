"""Files as raw rows: what stands in each, row by row, with its line number; nothing is judged here
but whether a row can be read at all. find() tells which files a path of a recipe means.

    .jsonl .json .txt, each also .gz and .zst      .parquet      .arrow (file or stream) .feather

Archives (.zip, .tar) are no data files. What is unpacked is one stream, and of it no more is held
than a row, so that a few bytes which unpack to a terabyte cost time and no memory.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from endonym.core.errors import DataError
from endonym.data.broken import Broken, Damaged
from endonym.data.columnar import COLUMNAR, columnar_rows
from endonym.data.json_list import elements

PACKINGS = ("", ".gz", ".zst")
ENDINGS = (*(base + pack for base in (".jsonl", ".json", ".txt") for pack in PACKINGS), *COLUMNAR)
BESIDE = (
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
)
"""Files that lie in a folder of data and say something about it; the names are Hugging Face's."""
LONGEST_LINE = 16 << 20
"""Bytes of one row. A longer line is passed over without being held in memory."""
LONGEST_TEXT = 1 << 28
"""Bytes of a .txt file that is one row."""
CHUNK = 1 << 20
FEED = 1 << 12
"""Compressed bytes unpacked at a time: 4 KiB of zstd can hold 128 MiB of one letter."""


def find(path: str | Path, folders: Sequence[Path] = ()) -> list[Path]:
    """The files that `path` means: a file, a folder (all its data files) or a glob pattern.

    A relative path is looked up in the working folder, then in each of `folders`; the first place
    that has it counts. Order: by name, folders within folders included.
    """
    places = [Path(path)] if Path(path).is_absolute() else [Path.cwd(), *folders]
    for place in places:
        if has_magic(str(path)) and not (place / path).exists():
            found = sorted(map(Path, glob(str(place / path), recursive=True)))
            if found := [each for each in found if is_data(each.name) and each.is_file()]:
                return found
            continue
        target = place / path
        if target.is_file():
            if not target.name.endswith(ENDINGS):
                raise DataError("not a kind of data file", where=target, wanted=", ".join(ENDINGS))
            return [target]
        if target.is_dir():
            found = sorted(p for p in target.rglob("*") if is_data(p.name) and p.is_file())
            if found:
                return found
            raise DataError("a folder without data files", where=target, wanted=", ".join(ENDINGS))
    raise DataError(
        f"there is no data file {path}",
        where=", ".join(str(place) for place in places if not Path(path).is_absolute()) or None,
        do=_nearest([place / path for place in places]),
    )


def is_data(name: str) -> bool:
    """Whether a file found in a folder is taken for data: dataset_info.json and .x.json are not."""
    last = name.rpartition("/")[2]
    return last.endswith(ENDINGS) and last not in BESIDE and not last.startswith((".", "_"))


def _nearest(targets: list[Path]) -> str:
    """A hint: the most alike existing name, beside the deepest part of a target that exists."""
    for target in targets:
        parent, missing = target.parent, target.name
        while not parent.is_dir() and parent != parent.parent:
            parent, missing = parent.parent, parent.name
        names = [each.name for each in parent.iterdir()] if parent.is_dir() else []
        close = get_close_matches(missing, names, n=1, cutoff=0.6)
        if close:
            return f"did you mean {parent / close[0]}?"
    return "check the path, or name the folder that holds it with --data"


def raw_rows(file: Path, unit: str = "paragraph") -> Iterator[tuple[int, Any]]:
    """(line, row) for each row of a file; a row that cannot be read is Broken. Lines count from 1.

    unit: "paragraph" or "file", for .txt. Rows of columnar files and of .json lists are counted instead.
    """
    base = file.name.removesuffix(".gz").removesuffix(".zst")
    if base.endswith(COLUMNAR):
        yield from columnar_rows(file)
    elif base.endswith(".txt"):
        yield from _paragraphs(file) if unit == "paragraph" else _whole(file)
    elif base.endswith(".json") and _first_letter(file) == b"[":
        yield from _list(file)
    else:
        for line, text in _lines(file):
            if isinstance(text, Broken):
                yield line, text
            elif text.strip():
                yield line, _parsed(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        return Broken(f"broken JSON: {reason}", text[:200])


def _list(file: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        for row in elements(_chunks(file), LONGEST_LINE):
            number += 1
            yield number, row
    except (ValueError, RecursionError, Damaged) as error:
        yield number + 1, Broken(f"broken JSON file: {error}"[:160], is_rest=True)


def _paragraphs(file: Path) -> Iterator[tuple[int, Any]]:
    start, held, size = 0, [], 0
    for line, text in _lines(file):
        if isinstance(text, Broken):
            yield line, text
            continue
        if text.strip():
            start = start if held else line
            size += len(text)
            if size > LONGEST_LINE:
                yield (
                    start,
                    Broken(f"a paragraph of more than {LONGEST_LINE >> 20} MiB", held[0][:200]),
                )
                held, size = [], 0
            else:
                held.append(text)
        elif held:
            yield start, {"text": "\n".join(held)}
            held, size = [], 0
    if held:
        yield start, {"text": "\n".join(held)}


def _whole(file: Path) -> Iterator[tuple[int, Any]]:
    parts, size = [], 0
    try:
        for chunk in _chunks(file):
            parts.append(chunk)
            size += len(chunk)
            if size > LONGEST_TEXT:
                yield 1, Broken(f"a text of more than {LONGEST_TEXT >> 20} MiB")
                return
        text = b"".join(parts).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        yield 1, Broken(f"invalid UTF-8 at byte {error.start}")
    except Damaged as error:
        yield 1, Broken(str(error))
    else:
        if text:
            yield 1, {"text": text}


def _lines(file: Path) -> Iterator[tuple[int, str | Broken]]:
    """Lines without their ends (LF or CRLF), decoded; unreadable and endless ones as Broken."""
    number, held, skipping = 1, bytearray(), b""
    try:
        for chunk in _chunks(file):
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                yield number, _decoded(number, skipping, bytes(held) + part)
                number, held, skipping = number + 1, bytearray(), b""
            held += rest
            if len(held) > LONGEST_LINE:
                skipping, held = skipping or bytes(held[:200]), bytearray()
    except Damaged as error:
        yield number, Broken(str(error), held[:200].decode("utf-8", "replace"), is_rest=True)
        return
    if held or skipping:
        yield number, _decoded(number, skipping, bytes(held))


def _decoded(number: int, skipped: bytes, raw: bytes) -> str | Broken:
    if skipped or len(raw) > LONGEST_LINE:
        start = (skipped or raw)[:200].decode("utf-8", "replace")
        return Broken(f"a line of more than {LONGEST_LINE >> 20} MiB", start)
    try:
        text = raw.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        return Broken(f"invalid UTF-8 at byte {error.start}", raw[:200].decode("utf-8", "replace"))
    return text.removeprefix("\ufeff") if number == 1 else text


def _chunks(file: Path) -> Iterator[bytes]:
    """The file's bytes, decompressed, some at a time."""
    if file.name.endswith(".gz"):
        fresh, wrong = (lambda: zlib.decompressobj(wbits=31)), zlib.error
    elif file.name.endswith(".zst"):
        import zstandard

        fresh, wrong = zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
    else:
        fresh, wrong = None, OSError
    with file.open("rb") as source:
        unpack = None
        while raw := source.read(CHUNK if fresh is None else FEED):
            if fresh is None:
                yield raw
                continue
            while raw:
                unpack = unpack or fresh()
                try:
                    found = unpack.decompress(raw)
                except wrong as error:
                    raise Damaged(f"damaged compressed file: {error}") from None
                for start in range(0, len(found), CHUNK):
                    yield found[start : start + CHUNK]
                raw = unpack.unused_data if unpack.eof else b""
                unpack = None if unpack.eof else unpack
        if unpack is not None:
            raise Damaged("the compressed file ends early (truncated)")


def _first_letter(file: Path) -> bytes:
    try:
        for chunk in _chunks(file):
            text = chunk.removeprefix(b"\xef\xbb\xbf").lstrip()
            if text:
                return text[:1]
    except Damaged:
        pass  # said when the rows are read
    return b""
