"""merge: mergekit's numbers, the equations of the papers, and what must be refused."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers import models as bpe

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import merge as benchmark
from endonym.core.errors import DataError, EndonymError, RecipeError
from endonym.model.shards import Shards
from endonym.surgery import blend
from endonym.surgery.merge import merge

LAYERS, WIDTH, INNER, ROWS = 3, 4, 6, 5
SHAPES = {
    "self_attn.q_proj": (4, 4), "self_attn.k_proj": (4, 4), "self_attn.v_proj": (4, 4),
    "self_attn.o_proj": (4, 4), "mlp.gate_proj": (6, 4), "mlp.up_proj": (6, 4),
    "mlp.down_proj": (4, 6), "input_layernorm": (4,), "post_attention_layernorm": (4,),
}  # fmt: skip
PHASE = {"base": (1.0, 0.0), "a": (1.0, 0.3), "b": (1.0, -0.4), "far": (0.2, 1.0)}


def weights(name, rows=ROWS, layers=LAYERS, head=True):
    """A Llama's tensors out of sines: the same on every machine, no generator involved."""
    own, change = PHASE[name]
    shapes = {"model.embed_tokens": (rows, WIDTH)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{key}": shape for key, shape in SHAPES.items()}
    shapes |= {"model.norm": (WIDTH,)} | ({"lm_head": (rows, WIDTH)} if head else {})
    tensors, at = {}, 0
    for key, shape in shapes.items():
        count = math.prod(shape)
        values = [
            own * math.sin(1.7 * k) + change * math.sin(2.3 * k * k + own)
            for k in range(at, at + count)
        ]
        tensors[f"{key}.weight"] = torch.tensor(values).view(shape)
        at += count
    return tensors


def write(folder, name, dtype=torch.float32, tensors=None, **config):
    folder.mkdir()
    tensors = weights(name) if tensors is None else tensors
    tensors = {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": ROWS,
        "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_act": "silu",
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": str(dtype).removeprefix("torch."), **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(written))


def read(folder):
    found = {}
    for file in Path(folder).glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.fixture
def home(tmp_path):
    for name in PHASE:
        write(tmp_path / name, name)
    return tmp_path


def run(home, recipe, out="out", **settings):
    (home / "merge.yml").write_text(recipe)
    shutil.rmtree(home / out, ignore_errors=True)
    figures = merge(home / "merge.yml", home / out, models=home, **settings)
    return read(home / out), figures


@pytest.fixture(params=[7, 1 << 17])
def pieces(request, monkeypatch):
    """Everything both in many pieces and in one."""
    monkeypatch.setattr(blend, "PIECE", request.param)


# --- mergekit ---------------------------------------------------------------------------------

TWO = "models: [{{model: a, parameters: {{{}}}}}, {{model: b, parameters: {{{}}}}}]\n"
RECIPES = {
    "linear": TWO.format("weight: 0.3", "weight: 0.9") + "merge_method: linear",
    "linear_sum": TWO.format("weight: [0, 1]", "weight: 2") + """
merge_method: linear
parameters: {normalize: false}
""",
    "slerp": """
slices:
  - sources: [{model: a, layer_range: [0, 3]}, {model: b, layer_range: [0, 3]}]
merge_method: slerp
base_model: a
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
""",
    "task_arithmetic": TWO.format("weight: 0.5", "weight: 0.7") + """
merge_method: task_arithmetic
base_model: base
parameters: {lambda: 0.8}
""",
    "task_arithmetic_mean": TWO.format("weight: 0.5", "weight: 0.7") + """
merge_method: task_arithmetic
base_model: base
parameters: {normalize: true}
""",
    "ties": TWO.format("weight: 0.4, density: 0.5", "weight: 0.7, density: [0.2, 0.8]") + """
merge_method: ties
base_model: base
parameters: {int8_mask: true}
""",
    "ties_sum": TWO.format("weight: 1, density: 0.3", "weight: 1, density: 0.6") + """
merge_method: ties
base_model: base
parameters: {normalize: false, rescale: true, lambda: 1.3}
""",
    "dare_ties": TWO.format("weight: 0.4, density: 1", "weight: 0.6, density: 1") + """
merge_method: dare_ties
base_model: base
""",
    "passthrough": """
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [1, 3], parameters: {scale: [{filter: o_proj, value: 0.5}]}}]
merge_method: passthrough
""",
}  # fmt: skip

GOLDEN = {
    "linear": (
        -0.727567, -0.547166, 0.921572, -0.099114, -0.968502, -0.015879, 0.852135, -0.647587,
        302.56546,
    ),
    "linear_sum": (
        -1.754807, -1.451416, 2.281948, -0.317599, -2.409467, -0.114699, 2.091032, -1.706459,
        744.78904,
    ),
    "slerp": (
        -0.791099, -0.533260, 0.974308, -0.070985, -1.018626, 0.018513, 0.909787, -0.636438,
        306.75061,
    ),
    "task_arithmetic": (
        -0.816225, -0.431695, 0.951968, -0.002574, -0.984803, 0.087836, 0.906490, -0.526600,
        301.50760,
    ),
    "task_arithmetic_mean": (
        -0.813050, -0.435831, 0.950880, -0.006031, -0.984219, 0.084122, 0.904543, -0.530933,
        301.51457,
    ),
    "ties": (
        -0.599344, -0.714169, 0.978095, -0.238740, -0.998814, -0.165881, 0.953208, -0.822569,
        312.60326,
    ),
    "ties_sum": (
        -0.407433, 0.506941, 0.978095, -0.447715, -0.998814, 0.930915, 0.953208, 0.456882,
        359.41245,
    ),
    "dare_ties": (
        -0.716577, -0.561481, 0.917804, -0.111082, -0.966481, -0.028737, 0.845397, -0.662586,
        302.83606,
    ),
    "passthrough": (
        -1.112238, -0.046157, 1.053458, 0.319762, -1.039230, 0.434125, 1.087972, -0.122642,
        399.82575,
    ),
}  # fmt: skip
"""Of mergekit 0.1.5 on these folders: eight weights of a layer, and the sum of all magnitudes."""


@pytest.mark.parametrize("name", RECIPES)
def test_mergekit_gives_the_same(home, name, pieces):
    found, _ = run(home, RECIPES[name])
    *some, total = GOLDEN[name]
    torch.testing.assert_close(
        found["model.layers.1.mlp.down_proj.weight"].flatten()[:8],
        torch.tensor(some), rtol=0, atol=1.1e-6,
    )  # fmt: skip
    assert sum(t.double().abs().sum().item() for t in found.values()) == pytest.approx(
        total, abs=1e-3
    )


# --- identities ---------------------------------------------------------------------------------


def one(method, model, extra="", **parameters):
    given = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    return f"""
models: [{{model: {model}, parameters: {{{given}}}}}]
merge_method: {method}
base_model: base
{extra}
"""


def test_a_model_merged_with_itself_is_itself(home, tmp_path):
    write(tmp_path / "a2", "a")
    for recipe in (
        "models: [{model: a}, {model: a2}]\nmerge_method: linear\nparameters: {weight: 0.5}",
        "models: [{model: a}, {model: a2}]\nmerge_method: slerp\nbase_model: a\nparameters: {t: 0.3}",
        "slices: [{sources: [{model: a, layer_range: [0, 3]}]}]\nmerge_method: passthrough",
        "models: [{model: a}]\nmerge_method: passthrough",
    ):
        found, _ = run(home, recipe)
        for name, tensor in weights("a").items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties", "dare_linear"])
def test_the_whole_task_vector_leads_back_to_the_model(home, method):
    density = {} if method == "task_arithmetic" else {"density": 1}
    found, _ = run(home, one(method, "a", weight=1, **density))
    for name, tensor in weights("a").items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)
    found, _ = run(home, one(method, "a", weight=0, **density))
    assert all(torch.equal(found[name], tensor) for name, tensor in weights("base").items())


def test_slerp_goes_along_the_great_circle(home):
    recipe = """
models: [{model: a}, {model: far}]
merge_method: slerp
base_model: a
parameters: {t: %s}
"""
    a, b = weights("a"), weights("far")
    for t in (0.0, 0.25, 1.0):
        found, _ = run(home, recipe % t)
        for name, tensor in found.items():
            x, y = a[name].double().flatten(), b[name].double().flatten()
            angle = torch.arccos(x @ y / (x.norm() * y.norm()))
            wanted = (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)
            torch.testing.assert_close(tensor.flatten(), wanted.float(), rtol=0, atol=2e-6)


def test_ties_keeps_the_largest_and_the_elected_sign(home, pieces):
    found, _ = run(home, RECIPES["ties"])
    base, models = weights("base"), [weights("a"), weights("b")]
    for name, tensor in found.items():
        layer = int(name.split(".")[2]) if "layers" in name else 0
        density = [0.5, 0.2 + 0.6 * layer / (LAYERS - 1)]  # a list runs over the layers
        kept = []
        for model, share in zip(models, density, strict=True):
            delta = (model[name] - base[name]).flatten()
            count = max(1, int(share * delta.numel()))
            order = sorted(range(delta.numel()), key=lambda k: -abs(delta[k].item()))
            kept.append(torch.zeros_like(delta).index_copy(0, *_at(delta, order[:count])))
        scaled = [0.4 * kept[0], 0.7 * kept[1]]
        sign = torch.where(sum(scaled) >= 0, 1.0, -1.0)
        agree = [(s * sign > 0).float() for s in scaled]
        divisor = 0.4 * agree[0] + 0.7 * agree[1]
        mean = sum(s * m for s, m in zip(scaled, agree, strict=True)) / divisor.clamp(min=1e-9)
        torch.testing.assert_close(tensor.flatten(), base[name].flatten() + mean, rtol=0, atol=2e-6)


def _at(delta, places):
    places = torch.tensor(places)
    return places, delta[places]


class Held:
    def __init__(self, values):
        self.values, self.elements = torch.as_tensor(values, dtype=torch.float32), len(values)

    def pieces(self):
        yield from (each.clone() for each in self.values.split(blend.PIECE))


def blended(base, models, **settings):
    settings = {"weights": [1.0] * len(models), **settings}
    return torch.cat(list(blend.task_arithmetic(Held(base), [Held(m) for m in models], **settings)))


def test_equal_magnitudes_are_kept_in_their_order_and_never_more_than_asked_for(pieces):
    values = [1.0, -1.0, 2.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 0.5]
    trim = {"sparse": blend.Sparse("magnitude"), "densities": [0.4]}
    kept = blended([0.0] * 10, [values], **trim)
    assert kept.tolist() == [1, -1, 2, 1, 0, 0, 0, 0, 0, 0]
    trim["densities"] = [0.01]  # at least one
    assert blended([0.0] * 10, [values], **trim).tolist() == [0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    trim["densities"] = [0]
    assert blended([0.0] * 10, [values], **trim).tolist() == [0] * 10


def test_dare_keeps_the_mean_and_draws_by_seed_and_place_alone(monkeypatch):
    n, p = 40_000, 0.3
    delta = torch.linspace(-1, 3, n)
    draw = {"densities": [p], "seeds": [(1, 2, 3)]}
    scaled = {"sparse": blend.Sparse("random", "density"), **draw}
    first = blended(torch.zeros(n), [delta], **scaled)
    kept = first != 0
    assert abs(kept.float().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    torch.testing.assert_close(first[kept], delta[kept] / p)
    monkeypatch.setattr(blend, "PIECE", 1001)
    assert torch.equal(blended(torch.zeros(n), [delta], **scaled), first)
    other = blended(torch.zeros(n), [delta], **{**scaled, "seeds": [(2, 2, 3)]})
    assert not torch.equal(other, first)
    # mergekit's rescale keeps the sum of magnitudes
    normed = blended(torch.zeros(n), [delta], sparse=blend.Sparse("random", "norm"), **draw)
    assert torch.equal(normed != 0, kept)
    assert normed.abs().sum().item() == pytest.approx(delta.abs().sum().item(), rel=1e-5)


def test_dare_over_folders_depends_on_the_seed(home):
    recipe = one("dare_ties", "a", weight=1, density=0.5)
    first, again, other = (run(home, recipe, seed=seed)[0] for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_slerp_of_vectors_without_direction_and_of_nearly_parallel_ones():
    x = torch.linspace(-1, 1, 50)
    near = torch.cat(list(blend.slerp(Held(x), Held(x * 2 + 1e-4), 0.25)))
    torch.testing.assert_close(near, 0.75 * x + 0.25 * (x * 2 + 1e-4))
    zero = torch.cat(list(blend.slerp(Held(x * 0), Held(x), 0.5)))
    torch.testing.assert_close(zero, math.sin(math.pi / 4) * x)


# --- tensors that are no weights, types, shards -----------------------------------------------


def test_integers_and_buffers_are_the_bases(home):
    for number, name in enumerate(("a", "b")):
        extra = {
            "model.rotary_emb.inv_freq": torch.full((2,), 1.0 + number),
            "model.layers.0.mlp.e_score_correction_bias": torch.full((2,), 1.0 + number),
            "steps": torch.tensor([7 + number]),
        }
        shutil.rmtree(home / name)
        write(home / name, name, tensors=weights(name) | extra)
    found, figures = run(home, RECIPES["linear"])
    assert figures["copied"] == 3
    assert found["steps"].tolist() == [7] and found["steps"].dtype == torch.int64
    assert found["model.rotary_emb.inv_freq"].tolist() == [1, 1]


def test_rounded_once_into_the_type_asked_for(home):
    recipe = RECIPES["task_arithmetic"]
    whole, _ = run(home, recipe)
    half, _ = run(home, recipe + "\ndtype: float32\nout_dtype: bfloat16\n")
    assert all(torch.equal(half[name], whole[name].bfloat16()) for name in whole)
    assert json.loads((home / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    double, _ = run(home, recipe + "\ndtype: float64\n")
    exact = {
        n: t.double() + 0.8 * (0.5 * (a.double() - t.double()) + 0.7 * (b.double() - t.double()))
        for (n, t), a, b in zip(
            weights("base").items(), weights("a").values(), weights("b").values(), strict=True
        )
    }
    assert all(torch.allclose(double[n], exact[n], rtol=0, atol=1e-15) for n in exact)
    # bfloat16 in, float32 sums: the error is that of one rounding
    for name in ("base", "a", "b"):
        write(home / f"{name}16", name, torch.bfloat16)
    text = recipe.replace("base_model: base", "base_model: base16")
    text = text.replace("model: a,", "model: a16,").replace("model: b,", "model: b16,")
    rounded, _ = run(home, text)
    b16, a16, o16 = (
        {n: t.bfloat16().double() for n, t in weights(name).items()} for name in ("base", "a", "b")
    )
    for n, t in rounded.items():
        exactly = b16[n] + 0.8 * (0.5 * (a16[n] - b16[n]) + 0.7 * (o16[n] - b16[n]))
        assert t.dtype == torch.bfloat16 and torch.equal(t, exactly.bfloat16())


def test_sharded_in_and_out(home):
    whole, _ = run(home, RECIPES["ties"])
    tensors = weights("a")
    (home / "a" / "model.safetensors").unlink()
    names, index = list(tensors), {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[number::3]}, home / "a" / file)
        index |= dict.fromkeys(names[number::3], file)
    (home / "a" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found, figures = run(home, RECIPES["ties"], shard_bytes=400)
    assert figures["shards"] > 3 and found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    written = json.loads((home / "out" / "model.safetensors.index.json").read_text())
    assert written["metadata"]["total_size"] == sum(4 * t.numel() for t in whole.values())
    again = Shards(home / "out")
    assert all(torch.equal(again.read(name), whole[name]) for name in whole)
    again.close()
    assert all(file.stat().st_size < 400 + 2000 for file in (home / "out").glob("*.safetensors"))


def test_wide_types_lie_aligned(home):
    odd = {"model.mark": torch.tensor([1, 2, 3], dtype=torch.uint8)}
    write(home / "c", "a", torch.bfloat16, tensors=odd | weights("a") | {"n": torch.tensor([1.0])})
    run(home, "models: [{model: c}]\nmerge_method: passthrough")
    entries = Shards(home / "out").entries.values()
    assert all(entry.start % entry.dtype.itemsize == 0 for entry in entries)


# --- stacking ---------------------------------------------------------------------------------


def test_stacked_layers_carry_their_settings(home):
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    shutil.rmtree(home / "a")
    write(home / "a", "a", layer_types=types)
    recipe = """
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: a, layer_range: [0, 3]}]
merge_method: passthrough
"""
    found, figures = run(home, recipe)
    assert figures["layers"] == 5
    for to, source in enumerate([0, 1, 0, 1, 2]):
        for key in SHAPES:
            tensor = weights("a")[f"model.layers.{source}.{key}.weight"]
            assert torch.equal(found[f"model.layers.{to}.{key}.weight"], tensor)
    config = json.loads((home / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 5
    assert config["layer_types"] == [types[layer] for layer in (0, 1, 0, 1, 2)]


def test_layers_beyond_the_count_are_merged_but_not_stacked(home):
    for name in ("a", "b"):
        shutil.rmtree(home / name)
        extra = {
            "model.layers.3.project.weight": weights(name)["model.layers.0.mlp.up_proj.weight"]
        }
        write(home / name, name, tensors=weights(name) | extra)
    found, _ = run(home, RECIPES["linear"])
    assert "model.layers.3.project.weight" in found
    with pytest.raises(DataError, match=r"cannot be stacked[\s\S]*layers.3.project"):
        run(home, RECIPES["passthrough"])


def test_a_stacked_model_runs(home):
    from endonym.model import hf

    run(home, RECIPES["passthrough"])
    model = hf.load(home / "out")
    assert model.config.num_hidden_layers == 4
    assert model(torch.tensor([[1, 2, 3]])).isfinite().all()


def test_models_with_skips_are_merged_whole_and_never_cut(home):
    from endonym.model import hf
    from endonym.model.config import ModelConfig

    sizes = dict(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    deep = [hf.new(ModelConfig(**sizes, skips=[(2, 0)]), seed) for seed in (1, 2)]
    for number, model in enumerate(deep):
        hf.save(model, home / f"deep{number}")
    recipe = (
        "models: [{model: deep0}, {model: deep1}]\nmerge_method: linear\nparameters: {weight: 1}"
    )
    run(home, recipe)
    merged = hf.load(home / "out")
    assert merged.config.skips == [(2, 0)] and merged.config.num_hidden_layers == 3
    for one, first, second in zip(*(m.parameters() for m in (merged, *deep)), strict=True):
        torch.testing.assert_close(one, (first + second) / 2)
    cut = "slices: [{sources: [{model: deep0, layer_range: [0, 2]}]}]\nmerge_method: passthrough"
    shutil.rmtree(home / "out")
    with pytest.raises(RecipeError, match="cannot be cut into slices"):
        run(home, cut)


def test_a_tied_head_meets_one_that_is_not(home):
    write(home / "tied", "b", tensors=weights("b", head=False), tie_word_embeddings=True)
    recipe = "models: [{model: tied}, {model: a}]\nmerge_method: linear\nparameters: {weight: 1}"
    found, _ = run(home, recipe)
    wanted = (weights("b")["model.embed_tokens.weight"] + weights("a")["lm_head.weight"]) / 2
    torch.testing.assert_close(found["lm_head.weight"], wanted)
    assert json.loads((home / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    stacked = """
slices:
  - sources: [{model: a, layer_range: [0, 3]}]
  - sources: [{model: tied, layer_range: [1, 3]}]
merge_method: passthrough
"""
    found, _ = run(home, stacked)
    assert torch.equal(found["lm_head.weight"], weights("b")["model.embed_tokens.weight"])
    assert torch.equal(
        found["model.embed_tokens.weight"], weights("a")["model.embed_tokens.weight"]
    )
    found, _ = run(home, "models: [{model: tied}]\nmerge_method: passthrough")
    assert "lm_head.weight" not in found


# --- vocabularies -----------------------------------------------------------------------------


def tokenizer(folder, letters, added):
    words = Tokenizer(bpe.BPE(vocab={letter: k for k, letter in enumerate(letters)}, merges=[]))
    words.add_special_tokens([AddedToken(each, special=True) for each in added])
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": added[0]}))


TABLES = ("model.embed_tokens.weight", "lm_head.weight")
MEAN = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"


def test_rows_are_matched_by_token(home):
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    tokenizer(home / "b", "zyx", ["</s>", "<s>"])
    found, figures = run(home, MEAN)
    assert figures["rows_by"] == "token"
    for name in TABLES:
        other = weights("b")[name][[2, 1, 0, 4, 3]]
        torch.testing.assert_close(found[name], (weights("a")[name] + other) / 2)
    assert (home / "out" / "tokenizer.json").read_bytes() == (
        home / "a" / "tokenizer.json"
    ).read_bytes()
    other = MEAN + "tokenizer_source: b\n"
    config = json.loads((home / "b" / "config.json").read_text()) | {"eos_token_id": 3}
    (home / "b" / "config.json").write_text(json.dumps(config))
    found, _ = run(home, other)
    own = weights("a")["lm_head.weight"][[2, 1, 0, 4, 3]]
    torch.testing.assert_close(found["lm_head.weight"], (own + weights("b")["lm_head.weight"]) / 2)
    config = json.loads((home / "out" / "config.json").read_text())
    assert config["eos_token_id"] == 3, "ids mean the tokenizer that the result has"


def test_the_same_tokens_in_other_files_are_matched_by_number(home):
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    tokenizer(home / "b", "xyz", ["<s>", "</s>"])
    file = home / "b" / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert run(home, MEAN)[1]["rows_by"] == "number"


def test_a_folder_without_a_tokenizer(home):
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    assert run(home, MEAN)[1]["rows_by"] == "number"
    assert (home / "out" / "tokenizer.json").exists()
    with pytest.raises(DataError, match="matched by their tokens"):
        run(home, MEAN + "tokenizer_source: base\n")


def test_a_row_that_a_model_lacks(home):
    # b has 6 rows and a token <im> that a lacks; a has </s>, which b lacks.
    shutil.rmtree(home / "b")
    write(home / "b", "b", tensors=weights("b", rows=6), vocab_size=6)
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    tokenizer(home / "b", "xyz", ["<s>", "<im>", "<pad>"])
    a, b = weights("a"), weights("b", rows=6)
    found, _ = run(home, MEAN)
    name = "lm_head.weight"
    assert found[name].shape == (5, WIDTH)
    torch.testing.assert_close(found[name][:4], (a[name][:4] + b[name][:4]) / 2)
    torch.testing.assert_close(found[name][4], a[name][4])  # what only one knows is not diluted
    union = MEAN + "tokenizer: {source: union, pad_to_multiple_of: 4}\n"
    found, _ = run(home, union)
    assert found[name].shape == (8, WIDTH)
    torch.testing.assert_close(found[name][4:7], torch.stack([a[name][4], b[name][4], b[name][5]]))
    torch.testing.assert_close(found[name][7], found[name][:7].mean(0))  # padding: like mergekit
    words = Tokenizer.from_file(str(home / "out" / "tokenizer.json")).get_vocab()
    assert (words["</s>"], words["<im>"], words["<pad>"]) == (4, 5, 6)
    assert json.loads((home / "out" / "config.json").read_text())["vocab_size"] == 8


def test_a_row_that_one_of_three_lacks(home):
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    tokenizer(home / "b", "xyz", ["<s>", "</s>"])
    tokenizer(home / "far", "xyz", ["<s>", "<im>"])
    a, b, far = (weights(name)["lm_head.weight"] for name in ("a", "b", "far"))
    three = MEAN.replace("}]", "}, {model: far}]")
    found, _ = run(home, three)
    # the base has it, so the third takes the base's: a task vector of zero there
    torch.testing.assert_close(found["lm_head.weight"][4], (2 * a[4] + b[4]) / 3)
    found, _ = run(home, three + "tokenizer_source: far\nbase_model: far\n")
    torch.testing.assert_close(found["lm_head.weight"][4], far[4])
    # the base lacks it and two others have it: their mean
    found, _ = run(home, three + "tokenizer_source: b\nbase_model: far\n")
    torch.testing.assert_close(found["lm_head.weight"][4], (a[4] + b[4]) / 2)


def test_a_union_of_ordinary_tokens_has_no_merges(home):
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    tokenizer(home / "b", "xyw", ["<s>", "</s>"])
    with pytest.raises(DataError, match=r"union[\s\S]*'w'"):
        run(home, MEAN + "tokenizer_source: union\n")


def test_rows_without_a_token_stay(home):
    for name in ("a", "b"):  # five rows, four tokens
        tokenizer(home / name, "xyz" if name == "a" else "zyx", ["<s>"])
    found, _ = run(home, MEAN)
    assert torch.equal(found["lm_head.weight"][4], weights("a")["lm_head.weight"][4])


def test_vocabularies_of_other_sizes_need_tokenizers(home):
    write(home / "c", "b", tensors=weights("b", rows=7), vocab_size=7)
    recipe = MEAN.replace("model: b", "model: c")
    with pytest.raises(DataError, match=r"embed_tokens[\s\S]*\(7, 4\)"):
        run(home, recipe)
    tokenizer(home / "a", "xyz", ["<s>", "</s>"])
    with pytest.raises(DataError, match="matched by their tokens"):
        run(home, recipe)


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ("merge_method: linear\nmodle: 1", "unknown key 'modle'"),
        ("merge_method: linear\nchat_template: auto", "unknown key 'chat_template'"),
        ("merge_method: model_stock", "linear"),
        ("merge_method: linear\nparameters: {density: 0.5}", "linear has no parameter 'density'"),
        ("merge_method: ties", "base_model, which ties needs"),
        ("merge_method: linear\nparameters: {weight: 1, normalize: maybe}", "normalize is neither"),
        ("merge_method: linear\nparameters: {weight: heavy}", "weight is not a number"),
        ("merge_method: linear\nparameters: {weight: 0}", "sum to 0"),
        ("merge_method: linear\nparameters: {weight: [{filter: q_proj, value: 1}]}", "gives no weight"),
        ("merge_method: linear\ndtype: int8", "dtype to be one of"),
        ("merge_method: linear\ntokenizer_source: z", "not merged"),
        ("merge_method: slerp\nbase_model: far\nparameters: {t: 1}", "one model beside"),
        ("merge_method: passthrough", "one source"),
        ("merge_method: [linear", "no YAML"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(home, change, message):
    with pytest.raises(RecipeError, match=message):
        run(home, f"models: [{{model: a}}, {{model: b}}]\n{change}")
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    "tail",
    ["  - &a [*a]", "\n".join(f"  - &x{n + 1} [{', '.join([f'*x{n}'] * 10)}]" for n in range(9))],
)
def test_aliases_that_have_no_end(home, tail):
    with pytest.raises(RecipeError, match="more than any merge needs"):
        run(home, f"merge_method: linear\nmodels:\n  - &x0 {{model: a}}\n{tail}")


def test_a_hub_name_and_layers_that_are_not_there(home):
    with pytest.raises(DataError, match="no such folder"):
        run(home, "models: [{model: some/model}]\nmerge_method: passthrough")
    with pytest.raises(RecipeError, match="3 layers"):
        run(
            home,
            "slices: [{sources: [{model: a, layer_range: [1, 4]}]}]\nmerge_method: passthrough",
        )


def spoil(home, edit):
    tensors = weights("b")
    edit(tensors)
    save_file(tensors, home / "b" / "model.safetensors")


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda t: t.update({"model.norm.weight": torch.ones(3)}), r"model.norm[\s\S]*\(3,\)"),
        (lambda t: t.update({"model.norm.weight": torch.ones(4, dtype=torch.int32)}), "model.norm"),
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "layers.1.mlp.up_proj"),
        (lambda t: t.update({"model.extra": torch.ones(3)}), "model.extra"),
        (lambda t: [t.pop(n) for n in list(t) if ".layers.2." in n], "layers of a model"),
    ],
)
def test_models_that_do_not_fit(home, edit, message):
    spoil(home, edit)
    with pytest.raises(DataError, match=message):
        run(home, RECIPES["linear"])
    assert not (home / "out").exists() and not list(home.glob(".out*"))


def test_quantised_weights(home):
    config = json.loads((home / "b" / "config.json").read_text())
    (home / "b" / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"bits": 4}})
    )
    with pytest.raises(DataError, match="quantised"):
        run(home, RECIPES["linear"])


@pytest.mark.parametrize("shard", ["../a/model.safetensors", "/etc/passwd", "..", "x/y", "", 3])
def test_an_index_that_leads_out_of_its_folder(home, shard):
    index = {"weight_map": {"model.norm.weight": shard}}
    (home / "b" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"outside its folder for model.norm.weight"):
        run(home, RECIPES["linear"])


@pytest.mark.parametrize(
    "index, message",
    [
        ({"weight_map": {"model.norm.weight": "model-2.safetensors"}}, "model-2.safetensors"),
        ({"weight_map": {"no.such.weight": "model.safetensors"}}, "no.such.weight"),
        ({"weight_map": ["model.safetensors"]}, "no weight_map"),
        ({}, "no weight_map"),
    ],
)
def test_an_index_that_lies(home, index, message):
    (home / "b" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=message):
        run(home, RECIPES["linear"])


def header(file, edit):
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    found = json.loads(raw[8 : 8 + size])
    edit(found)
    text = json.dumps(found).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


@pytest.mark.parametrize(
    "lie",
    [
        {"dtype": "F64"},
        {"dtype": "BF16"},
        {"shape": [8]},
        {"shape": [-4]},
        {"data_offsets": [0, 1 << 40]},
        {"dtype": "F4"},
    ],
)
def test_a_header_that_lies_about_a_tensor(home, lie):
    header(home / "b" / "model.safetensors", lambda h: h["model.norm.weight"].update(lie))
    with pytest.raises(DataError, match=r"b/model.safetensors"):
        run(home, RECIPES["linear"])


def test_eight_bit_floats_need_their_scales(home):
    spoil(home, lambda t: t.update({"model.norm.weight": torch.ones(4).to(torch.float8_e4m3fn)}))
    with pytest.raises(DataError, match=r"model.norm.weight[\s\S]*F8_E4M3"):
        run(home, RECIPES["linear"])


def test_what_stands_in_the_way_stays(home):
    run(home, RECIPES["linear"])
    before = (home / "out" / "config.json").read_bytes()
    with pytest.raises(DataError, match="not empty"):
        merge(home / "merge.yml", home / "out", models=home)
    assert (home / "out" / "config.json").read_bytes() == before
    with pytest.raises(EndonymError):
        merge(home / "merge.yml", home / "a" / "config.json", models=home)


@pytest.mark.parametrize("method", benchmark.METHODS)
def test_the_benchmarks_own_recipes(tmp_path, method):
    for seed, name in enumerate(("base", "a", "b")):
        benchmark.write_model(tmp_path / name, seed, 1, 64, 8, "bfloat16")
    (tmp_path / "recipe.yml").write_text(benchmark.recipe(method, "bfloat16"))
    merge(tmp_path / "recipe.yml", tmp_path / "out", models=tmp_path)
    assert 0 < benchmark.difference(tmp_path / "out", tmp_path / "a")["largest"] < 0.1
