"""Any causal language model that transformers knows, behind the protocol of checkpoint.CausalLM.

Packed rows are taken apart into one row per document before the model sees them: a block-diagonal
mask would reach only those families that take one, and pass by the sliding windows of some of them.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from endonym.core.errors import DataError, StoreError
from endonym.model.checkpoint import read_json, weight_files
from endonym.model.kernels import documents_in


def load_foreign(folder: Path, *, device: str | torch.device, dtype: torch.dtype) -> "ForeignLM":
    """transformers' own module for a folder; refused if its logits are more than hidden times head."""
    from transformers import AutoModelForCausalLM

    weight_files(folder)
    if read_json(folder / "config.json").get("transformers_weights") is not None:
        raise DataError(
            "config.json names another file of weights, which nobody checks",
            where=folder / "config.json",
            wanted="no transformers_weights",
        )
    try:
        module = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,  # left out, transformers asks at the terminal
        )
    except Exception as error:  # whatever its many loaders say of a folder that is not right
        raise DataError(
            "transformers cannot load this folder as a causal language model",
            where=folder,
            got=f"{type(error).__name__}: {error}".strip().split("\n")[0],
        ) from error
    model = ForeignLM(module.to(device).eval())
    model.check(folder)
    return model


class ForeignLM(nn.Module):
    """transformers' module; `module` is the ...ForCausalLM itself."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.config = module.config.get_text_config()

    @property
    def head(self) -> Tensor:
        return self.module.get_output_embeddings().weight

    @property
    def cap(self) -> float | None:
        return getattr(self.config, "final_logit_softcapping", None)

    def logits(self, hidden: Tensor) -> Tensor:
        z = F.linear(hidden, self.head)
        return z if self.cap is None else torch.tanh(z / self.cap) * self.cap

    def new_cache(self, rows: int, capacity: int) -> "ForeignCache":
        return ForeignCache(self.module.config, rows, self.head.device)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: "ForeignCache | None" = None,
    ) -> Tensor:
        """Hidden states [B, T, D]; as Decoder.forward. Positions always restart with a document."""
        if cache is not None:
            return self._cached(tokens, segments, cache)
        documents = None if segments is None else documents_in(segments)
        if documents is None:
            mask = None if segments is None else (segments > 0).long()
            return self._run(tokens, attention_mask=mask)
        slots = torch.ones_like(documents.gather).index_fill_(0, documents.blank, 0)
        inside = slots.split([n * length for n, length in documents.shapes])
        flat = tokens.reshape(-1)[documents.gather].split([len(each) for each in inside])
        done = [
            self._run(batch.view(shape), attention_mask=mask.view(shape)).flatten(0, 1)
            for batch, mask, shape in zip(flat, inside, documents.shapes)
        ]
        return torch.cat(done)[documents.home].view(*tokens.shape, -1)

    def _cached(self, tokens: Tensor, segments: Tensor | None, cache: "ForeignCache") -> Tensor:
        # transformers' caches grow all rows alike, so rows of unequal length are aligned at their
        # ends: padding is moved from the right to the left, and the states are moved back.
        rows, time = tokens.shape
        step = torch.arange(time, device=tokens.device).expand(rows, time)
        counts = torch.full_like(cache.lengths, time) if segments is None else (segments > 0).sum(1)
        shift = (time - counts)[:, None]
        assert cache.mask.shape[1] == 0 or not bool(shift.any()), "padding within a cached row"
        real = step >= shift
        cache.mask = torch.cat([cache.mask, real.long()], 1)
        hidden = self._run(
            tokens.gather(1, (step - shift).clamp(min=0)),
            attention_mask=cache.mask,
            position_ids=(cache.lengths[:, None] + step - shift).clamp(min=0),
            past_key_values=cache.past,
            use_cache=True,
        )
        cache.lengths = cache.lengths + counts
        back = (step + shift).clamp(max=time - 1)
        return hidden.gather(1, back[..., None].expand_as(hidden))

    def _run(self, tokens: Tensor, **others) -> Tensor:
        return self.module.base_model(input_ids=tokens, **others).last_hidden_state

    @torch.no_grad()
    def check(self, folder: Path) -> None:
        """Methods work on hidden states and the head, so a family that scales or shifts its logits
        would be trained on a wrong loss: such a one is refused. (A soft cap they know.)"""
        tokens = torch.arange(4, device=self.head.device)[None] % self.config.vocab_size
        theirs = self.module(input_ids=tokens).logits
        ours = self.logits(self(tokens))
        # bfloat16 rounds to 8 bits; a scale or a cap shifts logits by far more than 2 %.
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=2e-2, atol=2e-2):
            raise DataError(
                "this family changes its logits after the head, which losses on hidden states miss",
                where=folder / "config.json",
                got=getattr(self.config, "model_type", "?"),
                do="choose a base model without logit scaling or head bias",
            )

    def save(self, folder: Path, *, eos_ids=None, bos_id=None, pad_id=None) -> None:
        """As hf.save, by transformers' save_pretrained."""
        settings = self.module.generation_config
        for name, value in (("eos", _ids(eos_ids)), ("bos", bos_id), ("pad", pad_id)):
            if value is not None:
                setattr(settings, f"{name}_token_id", value)
                setattr(self.config, f"{name}_token_id", value)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".aside") as aside:
                self.module.save_pretrained(aside)
                # config.json last: without it a folder is not taken for a model
                for file in sorted(Path(aside).iterdir(), key=lambda f: f.name == "config.json"):
                    os.replace(file, folder / file.name)
        except OSError as error:
            raise StoreError(
                "a model could not be written", where=folder, got=str(error)
            ) from error


def _ids(ids: Iterable[int] | None) -> int | list[int] | None:
    found = sorted(ids) if ids is not None else []
    return found if len(found) > 1 else (found[0] if found else None)


class ForeignCache:
    """transformers' growing cache and the mask of what in it is padding."""

    can_refill = False

    def __init__(self, config, rows: int, device: torch.device):
        from transformers import DynamicCache

        self.past = DynamicCache(config=config)
        self.mask = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)

    def keep(self, index: Tensor) -> None:
        """Only the rows `index` remain, in that order."""
        self.past.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]
