"""Texts by the vectors of an embedding model: which of them a query means.

    folder of a model -> Embedder -> Vectors of a library's texts -> rankings of queries

The folder is any that transformers' AutoModel reads, a sentence-transformers folder included: how
tokens become one vector stands in its 1_Pooling/config.json (mean, the first or the last token; without
the file the mean), and what a query begins with in config_sentence_transformers.json ("prompts"), so
Qwen3-Embedding, which InK-GRPO's release takes, is read as it was trained. Vectors have length 1 and
are compared by inner product, all of them: a hundred thousand of 1,024 numbers are 0.4 GB (the release
quantises an index of more than ten thousand).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from endonym.core.artifact import sha256_file, write_atomic
from endonym.core.errors import DataError

ROWS = 32
LONGEST = 2048
"""Tokens of a text that are read, where the model says no smaller number."""
POOLINGS = {"mean": "pooling_mode_mean_tokens", "first": "pooling_mode_cls_token",
            "last": "pooling_mode_lasttoken"}  # fmt: skip


class Embedder:
    """An embedding model. cache: a folder in which vectors are kept by the content of model and texts."""

    def __init__(self, folder: Path | str, *, cache: Path | None = None, device: str = "cpu"):
        from transformers import AutoModel, AutoTokenizer

        self.folder, self.cache, self.device = Path(folder), cache, device
        if not (self.folder / "config.json").is_file():
            raise DataError("there is no model in this folder", where=folder, wanted="config.json")
        self.pooling, self.lead = _pooling(self.folder), _query_prompt(self.folder)
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="right")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.model = AutoModel.from_pretrained(self.folder, dtype=torch.float32).to(device).eval()
        self.longest = min(LONGEST, getattr(self.model.config, "max_position_embeddings", LONGEST))

    def __call__(self, texts: Sequence[str]) -> "Vectors":
        """The texts' vectors, out of the cache where they are there."""
        return Vectors(self, self._kept(texts))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D], rows of length 1."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        rows: list[np.ndarray] = [np.empty(0)] * len(texts)
        for at in range(0, len(order), ROWS):
            taken = order[at : at + ROWS]
            found = self._encode([texts[number] for number in taken])
            for number, row in zip(taken, found):
                rows[number] = row
        return np.stack(rows)

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> np.ndarray:
        told = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.device)
        hidden = self.model(
            input_ids=told["input_ids"], attention_mask=told["attention_mask"]
        ).last_hidden_state.float()
        mask = told["attention_mask"]
        if self.pooling == "mean":
            found = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        elif self.pooling == "first":
            found = hidden[:, 0]
        else:
            found = hidden[torch.arange(len(texts)), mask.sum(1) - 1]
        return torch.nn.functional.normalize(found, dim=1).cpu().numpy()

    def _kept(self, texts: Sequence[str]) -> np.ndarray:
        if self.cache is None:
            return self.encode(texts)
        file = self.cache / f"{self._identity(texts)}.npy"
        if not file.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            write_atomic(file, _bytes(self.encode(texts)))
        return np.load(file, allow_pickle=False)

    def _identity(self, texts: Sequence[str]) -> str:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        told = [[str(path.relative_to(self.folder)), sha256_file(path)] for path in files]
        return hashlib.sha256(json.dumps([told, list(texts)]).encode()).hexdigest()


class Vectors:
    """The vectors [N, D] of N texts, and the model that makes those of queries."""

    def __init__(self, embedder: Embedder, matrix: np.ndarray):
        self.embedder, self.matrix = embedder, matrix

    def rankings(self, queries: Sequence[str], depth: int) -> list[list[int]]:
        """For each query the numbers of the nearest texts, the nearest first."""
        asked = self.embedder.encode([self.embedder.lead + query for query in queries])
        near = asked @ self.matrix.T
        return [np.argsort(-row, kind="stable")[:depth].tolist() for row in near]


def _bytes(matrix: np.ndarray) -> bytes:
    from io import BytesIO

    held = BytesIO()
    np.save(held, matrix, allow_pickle=False)
    return held.getvalue()


def _pooling(folder: Path) -> str:
    told = _json(folder / "1_Pooling" / "config.json")
    if not told:
        return "mean"
    named = [name for name, key in POOLINGS.items() if told.get(key)]
    named = [told["pooling_mode"]] if "pooling_mode" in told else named
    named = [{"cls": "first", "lasttoken": "last"}.get(name, name) for name in named]
    if len(named) != 1 or named[0] not in POOLINGS:
        raise DataError(
            "the model makes its vectors in a way that is not known here",
            where=folder / "1_Pooling" / "config.json",
            wanted=f"one of {', '.join(POOLINGS)}",
            got=", ".join(map(str, named)) or "none",
        )
    return named[0]


def _query_prompt(folder: Path) -> str:
    return _json(folder / "config_sentence_transformers.json").get("prompts", {}).get("query", "")


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
