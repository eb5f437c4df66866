"""Vocabularies of several models brought into one order: rows by token, not by number.

Shapes: V rows of a model's own table, R rows of the result, D whatever a row holds (a head's bias: 1).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import Tensor

from endonym.core.errors import DataError, RecipeError
from endonym.surgery.blend import PIECE
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.read import PREFERRED, read

TABLES = (
    "embed_tokens.weight", "lm_head.weight", "lm_head.bias", "wte.weight", "word_embeddings.weight",
    "embed_in.weight", "embed_out.weight", "output.weight",
)  # fmt: skip
"""How the tables whose rows are tokens are named in the families that transformers knows."""


LACKS, PADDING = -1, -2


@dataclass(frozen=True)
class Order:
    """What the rows of the result are.

    rows:  R
    ids:   for each model, [R] its own row for each of them; -1 (LACKS) where it has none, -2 (PADDING)
           where there is no token
    owner: the model whose tokenizer the result takes; None for a union of several
    tokenizer: the union, where it is not a file that can be copied
    """

    rows: int
    ids: Mapping[str, Tensor]
    owner: str | None
    tokenizer: Tokenizer | None = None


def order(
    folders: Mapping[str, Path], rows: Mapping[str, int], source: str | None, multiple: int = 1
) -> Order | None:
    """The rows of the merged tables; None where all models number the same tokens alike.

    folders, rows: each model's folder and the rows of its table, the base first. source: "base", "union",
    a model's name, or None: the base's where the vocabularies differ. multiple: R is padded to it.

    Rows without a token (padding of the owner's table) stay the owner's; where a table grows, they are the
    mean of the other rows. A union has every token of every model, the base's ids first; what the others
    add must be added tokens (a chat format's control tokens): ordinary tokens of two vocabularies need
    one list of merges, which nobody has, and a tokenizer that lists them as added tokens finds none of
    them in a text.

    A folder without a tokenizer is taken to have that of the others where source is None, they have one
    and the same, and all tables are of one size.
    """
    names = list(folders)
    if source not in (None, "base", "union", *names):
        raise RecipeError(
            "the tokenizer is to be that of a model that is not merged",
            wanted=f"base, union or one of {', '.join(names)}",
            got=source,
        )
    owner = names[0] if source in (None, "base", "union") else source
    files = {name: _fingerprint(folder) for name, folder in folders.items()}
    known, sizes = {each for each in files.values() if each}, set(rows.values())
    if len(known) <= 1 and len(sizes) == 1 and (source is None or None not in files.values()):
        if rows[owner] % multiple == 0:
            return None
    elif not known and source is None:
        return None  # nothing is known of the tokens: by number, and the shapes must agree
    if lacking := [name for name, each in files.items() if each is None]:
        raise DataError(
            "the rows of two vocabularies can only be matched by their tokens",
            where=folders[lacking[0]],
            wanted=f"a tokenizer ({PREFERRED[0]}) in every model's folder",
            got="none",
        )
    words = {name: read(folder) for name, folder in folders.items()}
    tokens = {name: each.backend.get_vocab(with_added_tokens=True) for name, each in words.items()}
    if source is None and len(sizes) == 1 and all(t == tokens[owner] for t in tokens.values()):
        return None  # other files, the same tokens
    union, wanted = None, tokens[owner]
    if source == "union" and (more := _union(words, tokens, owner)):
        union = read(folders[owner])
        union.backend.add_tokens(more)
        wanted = union.backend.get_vocab(with_added_tokens=True)
    size = max(rows[owner], max(wanted.values()) + 1)
    size = -(-size // multiple) * multiple
    ids = {}
    for name in names:
        own = [PADDING] * size
        for token, row in wanted.items():
            there = tokens[name].get(token, LACKS)
            own[row] = there if there < rows[name] else LACKS
        ids[name] = torch.tensor(own)
    stays = torch.nonzero(ids[owner][: rows[owner]] == PADDING).flatten()
    for name in names:
        ids[name][stays] = stays if name == owner else LACKS
    return Order(size, ids, None if union else owner, union)


def _union(
    words: Mapping[str, Tokenizer], tokens: Mapping[str, Mapping[str, int]], owner: str
) -> list[AddedToken]:
    """The added tokens of the other models that the owner lacks, in the order of the models."""
    found: dict[str, AddedToken] = {}
    for name, each in words.items():
        added = {token.content: token for token in each.backend.get_added_tokens_decoder().values()}
        for token in sorted(tokens[name].keys() - tokens[owner].keys(), key=tokens[name].get):
            if token not in added:
                raise DataError(
                    "a union of these vocabularies would need merges that no tokenizer has",
                    wanted="models that differ in added tokens only",
                    got=f"{token!r}, an ordinary token of {name} that {owner} lacks",
                    do=f"tokenizer_source: base, or {name}",
                )
            found.setdefault(token, added[token])
    return list(found.values())


class Rows:
    """A model's table in the order of the result, as an operand of blend.

    A row that the model lacks is taken from where mergekit takes it: from the one model that has the
    token; else from the base, if that has it (so a task vector is zero there); else the mean over
    the models that have it; zeros if none has.
    """

    def __init__(self, table: Tensor, ids: Tensor, fill: "Fill"):
        self.table, self.ids, self.fill = table, ids, fill
        self.elements = len(ids) * fill.width
        self.mean = torch.zeros(())
        if (ids == PADDING).any():
            tokens = int((ids != PADDING).sum())
            total = sum(
                (piece.view(-1, fill.width).sum(0, dtype=torch.float64) for piece in self.pieces()),
                start=torch.zeros(fill.width, dtype=torch.float64),
            )
            self.mean = (total / tokens).to(fill.rows.dtype)

    def pieces(self) -> Iterator[Tensor]:
        step = max(1, PIECE // max(1, self.fill.width))
        for at in range(0, len(self.ids), step):
            ids = self.ids[at : at + step]
            rows = self.table[ids.clamp(min=0)].to(self.fill.rows.dtype).view(len(ids), -1)
            if (padding := ids == PADDING).any():
                rows[padding] = self.mean
            if (lacking := ids == LACKS).any():
                rows[lacking] = self.fill.rows[self.fill.at[at : at + step][lacking]]
            yield rows.view(-1)


class Fill:
    """The rows that some model lacks, [F, D], and which of them stands at each place, [R]."""

    def __init__(self, tables: Mapping[str, Tensor], where: Order, base: str, dtype: torch.dtype):
        names = list(tables)
        self.width = next(iter(tables.values()))[0].numel()
        has = torch.stack([where.ids[name] >= 0 for name in names])
        lacking = torch.nonzero(~has.all(0) & (where.ids[names[0]] != PADDING)).flatten()
        self.at = torch.full((where.rows,), -1, dtype=torch.long)
        self.at[lacking] = torch.arange(len(lacking))
        self.rows = torch.zeros(len(lacking), self.width, dtype=dtype)
        count = has[:, lacking].sum(0)
        for number, name in enumerate(names):
            takes = has[number, lacking]
            if base in tables and name != base:
                takes = takes & ((count == 1) | ~has[names.index(base), lacking])
            rows = tables[name][where.ids[name][lacking[takes]]].to(dtype).view(-1, self.width)
            shared = count[takes].clamp(min=1).to(dtype)[:, None]
            if base in tables and name == base:
                shared = torch.ones_like(shared)
            self.rows[takes] += rows / shared


def is_table(name: str) -> bool:
    """Whether the rows of a tensor are tokens, by its name."""
    return name.endswith(TABLES)


def _fingerprint(folder: Path) -> str | None:
    """sha256 of the first tokenizer file that the folder has, None if it has none."""
    for name in PREFERRED:
        if (file := folder / name).is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()
    return None
