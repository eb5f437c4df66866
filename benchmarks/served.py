"""Whether a model server answers as our own engine does: python -m benchmarks.served MODEL [--write FILE]

The command in ENDONYM_SERVER (engine/server.py) is started for the folder MODEL and asked PROMPTS prompts of
8 to 63 tokens, as `endonym run --server` asks. Greedy answers should be equal, token by token. Of drawn ones
the log-probabilities that the server tells are compared with those of our forward pass over the same tokens,
after the same temperature and truncation; asked again with the same seed it should draw the same.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, material
from endonym.core.artifact import write_atomic
from endonym.engine.backends import Own, serving
from endonym.engine.sampler import Sampling
from endonym.model import hf
from endonym.tokenizer.folder import Tokenizer

PROMPTS, ANSWER = 64, 48
CASES = {
    "greedy": Sampling(temperature=0.0, max_tokens=ANSWER),
    "T 1": Sampling(temperature=1.0, max_tokens=ANSWER),
    "T 0.7, top-p 0.9": Sampling(temperature=0.7, top_p=0.9, max_tokens=ANSWER),
    "T 1, top-k 20": Sampling(temperature=1.0, top_k=20, max_tokens=ANSWER),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served", description=__doc__)
    parser.add_argument("model", type=Path, help="a Hugging Face folder")
    parser.add_argument("--write", type=Path, help="put the figures into this file as JSON")
    given = parser.parse_args(arguments)
    model, words = hf.load(given.model).eval(), Tokenizer.load(given.model)
    prompts = material.prompts(words, PROMPTS)
    began = time.monotonic()
    with serving(given.model, "under-test") as server:
        result = {"machine": machine.describe(), "server": server.by, "prompts": PROMPTS}
        result["seconds_to_start"] = round(time.monotonic() - began, 1)
        own, stops = Own(model, "under-test"), sorted(words.stop_ids)
        result["rows"] = {
            name: one(model, prompts, sampling, stops, server, own)
            for name, sampling in CASES.items()
        }
    text = json.dumps(result, indent=1) + "\n"
    if given.write:
        write_atomic(given.write, text.encode())
    print(text, end="")
    return 0


def one(model, prompts, sampling: Sampling, stops, server, own) -> dict[str, Any]:
    """The figures of one way to draw."""
    answers, again = (server.generate(prompts, sampling, stops) for _ in range(2))
    ours = own.generate(prompts, sampling, stops)
    figures = {
        "tokens": sum(len(each.tokens) for each in answers),
        "drawn_again_alike": sum(a.tokens == b.tokens for a, b in zip(answers, again)),
    }
    if sampling.temperature == 0:
        figures["equal_to_ours"] = sum(a.tokens == b.tokens for a, b in zip(answers, ours))
        return figures
    found = [
        (logprobs(model, prompt, each.tokens, sampling) - torch.tensor(each.logprobs)).abs()
        for prompt, each in zip(prompts, answers)
    ]
    difference = torch.cat(found)
    figures["logprob_difference"] = {
        "mean": float(difference.mean()),
        "largest": float(difference.max()),
    }
    return figures


@torch.no_grad()
def logprobs(model, prompt: list[int], answer: list[int], sampling: Sampling) -> Tensor:
    """[len(answer)]: in the distribution drawn from, by a forward pass over the whole."""
    ids = torch.tensor([prompt + answer])
    z = model.logits(model(ids[:, :-1])[0, len(prompt) - 1 :]).float() / sampling.temperature
    if sampling.top_k:
        z = z.masked_fill(z < z.topk(sampling.top_k, 1).values[:, -1:], -math.inf)
    if sampling.top_p < 1:
        share, order = z.softmax(1).sort(1, descending=True)
        kept = torch.zeros_like(z, dtype=torch.bool)
        kept.scatter_(1, order, share.cumsum(1) - share < sampling.top_p)
        z = z.masked_fill(~kept, -math.inf)
    return z.log_softmax(1)[torch.arange(len(answer)), torch.tensor(answer)]


if __name__ == "__main__":
    sys.exit(main())
