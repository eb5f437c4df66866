"""Merging beside mergekit, on the same folders: `python -m benchmarks.merge --mergekit PYTHON`.

PYTHON is the interpreter of an environment with mergekit in it. Each merge is a process of its own, as a
user runs it, the two in turn; what counts is its processor time and its peak resident memory (VmHWM: what
the system reports of a child also counts its parent). The same merge of models of no size gives the
start-up, which is said apart: what is left is the merging. Results are compared too.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks import machine
from benchmarks.compare import environment, spread
from endonym.core.artifact import write_atomic
from endonym.core.errors import MachineError

METHODS: dict[str, dict[str, Any]] = {
    "linear": {"models": {"a": {"weight": 0.4}, "b": {"weight": 0.6}}},
    "slerp": {"models": {"b": {}}, "base_model": "a", "parameters": {"t": 0.3}},
    "task_arithmetic": {
        "models": {"a": {"weight": 0.4}, "b": {"weight": 0.6}},
        "base_model": "base",
    },
    "ties": {
        "models": {"a": {"weight": 0.4, "density": 0.5}, "b": {"weight": 0.6, "density": 0.5}},
        "base_model": "base",
    },
    "dare_ties": {
        "models": {"a": {"weight": 0.4, "density": 0.5}, "b": {"weight": 0.6, "density": 0.5}},
        "base_model": "base",
    },
}

OURS = """
import sys
from endonym.surgery.merge import merge
merge(sys.argv[1], sys.argv[2], models=sys.argv[3])
"""
PEAK = """
import pathlib, re
status = pathlib.Path("/proc/self/status")
if status.exists():
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
THEIRS = """
import sys, os, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
os.chdir(sys.argv[3])
recipe = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1])))
options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
run_merge(recipe, sys.argv[2], options)
"""


def write_model(folder: Path, seed: int, layers: int, width: int, vocab: int, dtype: str) -> None:
    """A Llama folder with drawn weights; seeds above 0 are seed 0 and a smaller difference."""
    inner, heads = width * 11 // 4, width // 64
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "torch_dtype": dtype,
    }  # fmt: skip
    shapes = {
        "model.embed_tokens": (vocab, width),
        "lm_head": (vocab, width),
        "model.norm": (width,),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj": (width, width) for name in "qkvo"}
        shapes |= {f"{at}.mlp.{name}_proj": (inner, width) for name in ("gate", "up")}
        shapes |= {
            f"{at}.mlp.down_proj": (width, inner),
            f"{at}.input_layernorm": (width,),
            f"{at}.post_attention_layernorm": (width,),
        }
    first, own = (torch.Generator().manual_seed(number) for number in (0, seed))
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=first) * 0.02
        if seed:
            value += torch.randn(shape, generator=own) * 0.002
        tensors[f"{name}.weight"] = value.to(getattr(torch, dtype))
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def recipe(method: str, dtype: str) -> str:
    """JSON, which is YAML."""
    given = dict(METHODS[method])
    models = [
        {"model": n, **({"parameters": p} if p else {})} for n, p in given.pop("models").items()
    ]
    if method == "slerp":
        models.insert(0, {"model": "a"})
    return json.dumps({"merge_method": method, "models": models, "dtype": dtype, **given})


def run(python: str, code: str, arguments: list[str], threads: int) -> dict[str, float]:
    """Processor and wall seconds and peak resident bytes of one process."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as home:
        began = time.monotonic()
        process = subprocess.Popen(
            [python, "-c", code + PEAK, *arguments],
            stdout=subprocess.PIPE, stderr=log, env=environment(threads, Path(home)),
        )  # fmt: skip
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        if status:
            log.seek(0)
            raise MachineError("a merge failed", where=python, got=log.read().decode()[-2000:])
    peak = int(said.split()[-1])
    return {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "peak": peak}


def difference(a: Path, b: Path) -> dict[str, float]:
    """The largest difference of any weight (0: bit-equal), and the share of weights above 1e-6."""
    largest, above, count = 0.0, 0, 0
    left, right = (
        {
            name: file
            for file in folder.glob("*.safetensors")
            for name in safe_open(file, "pt").keys()  # noqa: SIM118 (no iterator)
        }
        for folder in (a, b)
    )
    assert left.keys() == right.keys()
    for name in left:
        one, other = (safe_open(files[name], "pt").get_tensor(name) for files in (left, right))
        apart = (one.float() - other.float()).abs()
        largest, above = max(largest, apart.max().item()), above + int((apart > 1e-6).sum())
        count += apart.numel()
    return {"largest": largest, "share_above_1e-6": above / count}


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    arms = {"endonym": (sys.executable, OURS)}
    if given.mergekit:
        arms["mergekit"] = (given.mergekit, THEIRS)
    rows = []
    with tempfile.TemporaryDirectory(prefix="endonym-bench-", dir=given.scratch) as scratch:
        sizes = {"start-up": (1, 64, 64), "whole": (given.layers, given.width, given.vocab)}
        for size, (layers, width, vocab) in sizes.items():
            (Path(scratch) / size).mkdir()
            for seed, name in enumerate(("base", "a", "b")):
                write_model(Path(scratch) / size / name, seed, layers, width, vocab, given.dtype)
        for method in given.methods or METHODS:
            row: dict[str, Any] = {"method": method, "dtype": given.dtype}
            taken: dict[str, dict[str, list[dict[str, float]]]] = {}
            for round_ in range(given.repeats):
                for size in sizes:
                    home = Path(scratch) / size
                    (home / "recipe.yml").write_text(recipe(method, given.dtype))
                    for arm, (python, code) in arms.items():
                        print(f"{method}, {size}, {arm}, round {round_ + 1}", file=sys.stderr)
                        to = home / f"out-{arm}"
                        subprocess.run(["rm", "-rf", str(to)], check=True)
                        used = run(
                            python,
                            code,
                            [str(home / "recipe.yml"), str(to), str(home)],
                            given.threads,
                        )
                        taken.setdefault(arm, {}).setdefault(size, []).append(used)
            for arm, by_size in taken.items():
                row[arm] = {
                    what: spread([each[what] for each in by_size["whole"]])
                    for what in ("cpu", "wall", "peak")
                }
                row[arm]["start_up_cpu"] = spread([each["cpu"] for each in by_size["start-up"]])
            home = Path(scratch) / "whole"
            row["bytes_in"] = (home / "a" / "model.safetensors").stat().st_size
            if given.mergekit:
                row["ratios"] = {
                    what: row["mergekit"][what]["median"] / row["endonym"][what]["median"]
                    for what in ("cpu", "wall", "peak")
                }
                merging = [
                    row[arm]["cpu"]["median"] - row[arm]["start_up_cpu"]["median"]
                    for arm in ("mergekit", "endonym")
                ]
                row["ratios"]["merging_cpu"] = merging[0] / merging[1]
                if method != "dare_ties":  # its choice is drawn by other streams
                    row["difference"] = difference(home / "out-endonym", home / "out-mergekit")
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: all")
    parser.add_argument("--mergekit", metavar="PYTHON", help="left out: Endonym alone")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", help="where models of this size fit")
    parser.add_argument("--write", type=Path, help="the JSON file to write")
    given = parser.parse_args()
    for method in given.methods:
        if method not in METHODS:
            parser.error(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    result = {
        "machine": machine.describe() | {"safetensors": importlib.metadata.version("safetensors")},
        "sizes": {name: getattr(given, name) for name in ("layers", "width", "vocab", "threads")},
        "merges": measure(given),
    }
    as_json = json.dumps(result, indent=1) + "\n"
    if given.write:
        write_atomic(given.write, as_json.encode())
    print(as_json, end="")


if __name__ == "__main__":
    main()
