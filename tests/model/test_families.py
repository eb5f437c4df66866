"""Folders of every family in and out again: the same bits, the same meaning, transformers' own class."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from endonym.core.errors import DataError, EndonymError, RecipeError
from endonym.model import hf
from endonym.model.config import Experts, ModelConfig, RopeScaling
from endonym.model.families import FAMILIES
from endonym.model.foreign import ForeignLM
from endonym.model.hub import config_from, fields_from, why_not_native
from endonym.model.shards import Shards
from endonym.model.to_hub import config_to
from model.oracle import KINDS, TOKENS, oracle

transformers = pytest.importorskip("transformers")

SMALL = ModelConfig(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip
EXPERTS = Experts(count=4, chosen=2, width=24)
S, F = "sliding_attention", "full_attention"
K_EXAONE = {
    "qk_norm": True,
    "experts": Experts(count=4, chosen=2, width=24, router="sigmoid", shared=1, first_dense=2),
}


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def tensors_of(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def same_tensors(one, two):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype, name
        assert torch.equal(tensor, two[name]), name


def meaning(folder):
    """What transformers understands, without what changes no logit."""
    found = transformers.AutoConfig.from_pretrained(folder).to_dict()
    idle = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "max_window_layers"}
    if found.get("layer_types"):
        idle.add("sliding_window_pattern")
    return {k: v for k, v in found.items() if k not in idle}


# --- out and in again ---


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_out_again_is_the_same_folder(kind, tmp_path):
    theirs = oracle(kind, tmp_path / "a")
    saved = hf.save(hf.load(tmp_path / "a"), tmp_path / "b")
    assert saved == hf.Saved(type(theirs).__name__)
    same_tensors(tensors_of(tmp_path / "b"), tensors_of(tmp_path / "a"))
    expected, got = meaning(tmp_path / "a"), meaning(tmp_path / "b")
    assert {k: got.get(k) for k in expected if k != "head_dim"} == {
        k: v for k, v in expected.items() if k != "head_dim"
    }
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "b", output_loading_info=True
    )
    assert type(again) is type(theirs)
    assert not any(report.values()), report
    assert torch.equal(again(TOKENS).logits, theirs(TOKENS).logits)
    assert hf.load(tmp_path / "b").config == hf.load(tmp_path / "a").config


@pytest.mark.parametrize("kind", ["llama", "phi3", "mixtral", "exaone_moe"])
@torch.no_grad()
def test_half_precision_keeps_its_bits_and_the_selection_bias_is_whole(kind, tmp_path):
    oracle(kind, tmp_path / "a")
    one = hf.load(tmp_path / "a", dtype=torch.bfloat16)
    hf.save(one, tmp_path / "b", eos_ids={5, 3})
    two = hf.load(tmp_path / "b", dtype=torch.bfloat16)
    assert two.config == one.config.model_copy(update={"eos_token_id": [3, 5]})
    same_tensors(two.state_dict(), one.state_dict())
    kept = {n for n, t in one.state_dict().items() if t.dtype == torch.float32}
    assert kept == {n for n in one.state_dict() if n.endswith("router.bias")}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert theirs.dtype == torch.bfloat16
    assert theirs.generation_config.eos_token_id == [3, 5]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_out_is_as_in_transformers(family, tmp_path):
    kind = next(kind for kind in KINDS if kind.split(",")[0] == family)
    oracle(kind, tmp_path)
    raw = config_of(tmp_path)
    window = {"sliding_window", "layer_types"}  # one without the other is refused or has no meaning
    sizes = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "model_type"}
    if family != "solar_open":
        sizes.add("intermediate_size")
    for name in raw.keys() - sizes - window:
        less = {k: v for k, v in raw.items() if k != name}
        if name == "mlp_layer_types":
            del less["first_k_dense_replace"]
        whole = transformers.AutoConfig.for_model(**less).to_dict()
        try:
            assert config_from(less) == config_from(whole), name
        except RecipeError:  # the default does not go with these sizes
            ours, theirs = fields_from(less), fields_from(whole)
            assert {k: ours[k] for k in theirs if k in ours} == theirs, name


def test_a_size_that_is_left_out_is_missing(tmp_path):
    oracle("llama", tmp_path)
    raw = config_of(tmp_path)
    del raw["hidden_size"]
    with pytest.raises(RecipeError, match="'hidden_size' is missing"):
        config_from(raw)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "exaone_moe", "solar_open"])
def test_experts_as_they_lie_in_memory(kind, tmp_path):
    theirs = oracle(kind, tmp_path / "a")
    theirs.save_pretrained(tmp_path / "fused", save_original_format=False)
    fused = tensors_of(tmp_path / "fused")
    assert any(name.endswith("experts.gate_up_proj") for name in fused)
    same_tensors(hf.load(tmp_path / "fused").state_dict(), hf.load(tmp_path / "a").state_dict())
    save_file({**fused, **tensors_of(tmp_path / "a")}, tmp_path / "fused" / "model.safetensors")
    with pytest.raises(DataError, match="twice"):
        hf.load(tmp_path / "fused")


def test_a_family_is_kept_or_chosen(tmp_path):
    oracle("phi3", tmp_path / "a", rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    model = hf.load(tmp_path / "a")
    assert hf.save(model, tmp_path / "b").architecture == "Phi3ForCausalLM"
    assert hf.save(model, tmp_path / "c", family="llama").architecture == "LlamaForCausalLM"
    assert "model.layers.0.self_attn.q_proj.weight" in tensors_of(tmp_path / "c")
    same_tensors(hf.load(tmp_path / "c").state_dict(), model.state_dict())
    fresh = hf.new(SMALL, 0)
    assert hf.save(fresh, tmp_path / "d").architecture == "LlamaForCausalLM"


def changed(**fields):
    return ModelConfig(**{**SMALL.model_dump(), **fields})


@pytest.mark.parametrize(
    "fields, family",
    [
        ({}, "llama"),
        ({"mlp_bias": True, "head_dim": 16}, "llama"),
        ({"qk_norm": True, "attention_bias": True}, "qwen3"),
        ({"qkv_bias": True}, "qwen2"),
        ({"sliding_window": 6, "layer_types": [S, S, S]}, "mistral"),
        ({"qk_norm": True, "sliding_window": 6, "layer_types": [F, S, S]}, "qwen3"),
        ({"experts": EXPERTS}, "mixtral"),
        ({"experts": EXPERTS, "qk_norm": True}, "qwen3_moe"),
        (
            {"experts": Experts(count=4, chosen=2, width=24, router="sigmoid", shared=2)},
            "solar_open",
        ),
        ({"norm_after": True, "qk_norm": True}, "exaone4"),
        (
            {**K_EXAONE, "sliding_window": 6, "layer_types": [S, F, S], "rope_layers": "sliding"},
            "exaone_moe",
        ),
        ({"norm_after": True, "norm_before": True, "logits_scaling": 0.5}, "hyperclovax"),
        ({"partial_rotary_factor": 0.5}, "phi3"),
        ({"rope_scaling": RopeScaling(type="linear", factor=2.0)}, "llama"),
    ],
)
def test_the_first_family_that_has_it_all(fields, family):
    raw = config_to(changed(**fields))
    assert raw["model_type"] == family
    assert config_to(config_from(raw)) == raw
    transformers.AutoConfig.for_model(**raw)


@pytest.mark.parametrize(
    "fields, what",
    [
        ({"qk_norm": True, "mlp_bias": True}, "llama[\\s\\S]*qk_norm = True"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ({"experts": EXPERTS, "attention_bias": True}, "qwen3_moe[\\s\\S]*qk_norm = False"),
        ({"skips": [(1, 0)]}, r"skips = \[\(1, 0\)\]"),
        ({"mtp_modules": 1}, "mtp_modules = 1"),
        (K_EXAONE, "= "),  # transformers' class has a window always
        ({"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 8, "mlp_bias": True},
         "no multiple of the heads"),
        ({"experts": EXPERTS.model_copy(update={"router": "sigmoid"})}, "experts"),
    ],
)  # fmt: skip
def test_what_no_family_has_is_named(fields, what):
    with pytest.raises(RecipeError, match=f"no Hugging Face family[\\s\\S]*{what}"):
        config_to(changed(**fields))


# --- what config.json may say ---


@pytest.mark.parametrize(
    "kind, field, value",
    [
        ("llama", "rope_scaling", {"rope_type": "mrope", "mrope_section": [1, 2]}),
        ("llama", "rope_scaling", {"rope_type": "linear", "factor": 2.0, "finetuned": True}),
        ("llama", "rope_parameters", {"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("llama", "rope_parameters", {"full_attention": {"rope_theta": 1e4}}),
        ("llama", "rope_parameters", [1]),
        ("llama", "hidden_act", "gelu"),
        ("llama", "sliding_window", 4),
        ("llama", "attention_dropout", 0.1),
        ("llama", "model_type", "gemma3_text"),
        ("llama", "model_type", ["llama"]),
        ("llama", "qk_norm", True),
        ("llama", "logit_scale", 0.5),
        ("llama", "layer_types", [S, F, F]),
        ("llama", "quantization_config", {"quant_method": "fp8"}),
        ("llama", "a_field_of_tomorrow", 1),
        ("mistral", "attention_bias", True),
        ("mistral", "layer_types", [S, F, F]),
        ("phi3", "resid_pdrop", 0.1),
        ("phi3", "rope_scaling", {"type": "linear", "factor": 2.0}),
        ("qwen3_moe", "decoder_sparse_step", 2),
        ("qwen3_moe", "mlp_only_layers", [1]),
        ("mixtral", "num_experts", 5),
        ("exaone4", "layer_types", [F, F, F]),
        ("exaone_moe", "mlp_layer_types", ["dense", "sparse", "dense"]),
        ("exaone_moe", "is_moe_layer", [True, True, True]),
        ("exaone_moe", "num_nextn_predict_layers", 2),
        ("exaone_moe", "scoring_func", "softmax"),
        ("solar_open", "first_k_dense_replace", 1),
        ("solar_open", "use_qk_norm", True),
    ],
)
def test_no_field_is_passed_over(kind, field, value, tmp_path):
    oracle(kind, tmp_path)
    raw = config_of(tmp_path)
    assert why_not_native(raw) is None
    reason = why_not_native({**raw, field: value})
    assert (reason and field in reason) or "slides" in reason
    with pytest.raises(DataError, match="cannot run"):
        config_from({**raw, field: value})


ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**4,
    "x",
    "",
    [],
    [1],
    ["x"],
    [None],
    {},
    {"a": 1},
    {"rope_type": []},
]


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_values_are_refused_by_name_or_go_to_transformers(family, tmp_path):
    oracle(next(kind for kind in KINDS if kind.split(",")[0] == family), tmp_path)
    raw = config_of(tmp_path)
    for name in [*raw, "rope_scaling", "layer_types", "mlp_only_layers", "is_moe_layer"]:
        for value in ODD:
            odd = {**raw, name: value}
            try:
                assert (why_not_native(odd) is None) == isinstance(config_from(odd), ModelConfig)
            except EndonymError as error:
                assert error.where


@pytest.mark.parametrize(
    "field, value", [("hidden_size", "x"), ("num_hidden_layers", []), ("hidden_act", "none")]
)
def test_what_transformers_cannot_load_either_is_one_error(field, value, tmp_path):
    oracle("llama", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config_of(tmp_path), field: value}))
    with pytest.raises(DataError, match="transformers cannot load"):
        hf.load(tmp_path)


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
def test_what_phi_called_its_scaling(name, tmp_path):
    oracle("phi3", tmp_path, rope_parameters={"rope_theta": 500.0, "rope_type": "default"})
    raw = {**config_of(tmp_path), "original_max_position_embeddings": 8}
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    scaling = config_from({**raw, "rope_scaling": {"type": name, **factors}}).rope_scaling
    assert (scaling.type, scaling.original_max_position_embeddings) == ("longrope", 8)


def test_window_of_qwen_counts_only_when_it_is_on(tmp_path):
    oracle("qwen3", tmp_path)
    raw = config_of(tmp_path)
    del raw["layer_types"]
    off = config_from({**raw, "use_sliding_window": False, "sliding_window": 4096})
    assert off.sliding_window is None and off.layer_types is None
    on = {**raw, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}
    assert config_from(on).layer_types == [F, F, S]
    assert "layer_types" in why_not_native({**raw, "layer_types": [F, F, S]})


@torch.no_grad()
def test_a_field_that_is_not_ours_goes_to_transformers(tmp_path):
    oracle("llama", tmp_path)
    raw = config_of(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**raw, "hidden_act": "gelu"}))
    ours = hf.load(tmp_path)
    assert isinstance(ours, ForeignLM)


# --- what only we have ---


@torch.no_grad()
def test_mtp_of_k_exaone_lies_where_its_servers_look(tmp_path):
    theirs = oracle("exaone_moe", tmp_path / "a")
    config = hf.load(tmp_path / "a").config.model_copy(update={"mtp_modules": 1})
    model = hf.new(config, 1)
    assert hf.save(model, tmp_path / "b") == hf.Saved("ExaoneMoeForCausalLM")
    raw, tensors = config_of(tmp_path / "b"), tensors_of(tmp_path / "b")
    assert raw["num_nextn_predict_layers"] == 1
    assert {name for name in tensors if name.startswith("mtp.")} >= {
        "mtp.fc.weight", "mtp.norm.weight", "mtp.pre_fc_norm_embedding.weight",
        "mtp.pre_fc_norm_hidden.weight", "mtp.layers.0.self_attn.q_proj.weight",
        "mtp.layers.0.mlp.gate_proj.weight", "mtp.layers.0.input_layernorm.weight",
    }  # fmt: skip
    again = hf.load(tmp_path / "b")
    same_tensors(again.state_dict(), model.state_dict())
    whole, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "b", output_loading_info=True
    )
    assert type(whole) is type(theirs) and not report["missing_keys"]
    torch.testing.assert_close(whole(TOKENS).logits, model.logits(model(TOKENS)))
    # transformers leaves the modules out when it saves, but not the field that announces them
    whole.save_pretrained(tmp_path / "c")
    assert config_of(tmp_path / "c")["num_nextn_predict_layers"] == 1
    assert hf.load(tmp_path / "c").config.mtp_modules == 0


@torch.no_grad()
def test_skips_have_a_class_of_their_own(tmp_path):
    config = changed(skips=[(2, 0)], skip_alpha=0.25, mtp_modules=2, sliding_window=6,
                     layer_types=[S, S, S])  # fmt: skip
    model = hf.new(config, 0)
    assert hf.save(model, tmp_path / "own", eos_ids=[7]).architecture == "EndonymForCausalLM"
    again = hf.load(tmp_path / "own")
    assert again.config == config.model_copy(update={"eos_token_id": 7})
    same_tensors(again.state_dict(), model.state_dict())
    assert again.model.skip_alpha["2"].requires_grad
    with pytest.raises(ValueError, match="trust_remote_code"):  # rather than a wrong result
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "own", trust_remote_code=False)

    saved = hf.save(model, tmp_path / "plain", plain=True)
    assert saved == hf.Saved("MistralForCausalLM", ("1 skips", "2 MTP modules"))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    model.model.skip_alpha["2"].zero_()
    torch.testing.assert_close(plain(TOKENS).logits, model.logits(model(TOKENS)))


def test_plain_says_what_is_left_in_the_way(tmp_path):
    model = hf.new(changed(final_logit_softcapping=30.0, skips=[(1, 0)]), 0)
    with pytest.raises(RecipeError, match="final_logit_softcapping"):
        hf.save(model, tmp_path, plain=True)
    assert not list(tmp_path.iterdir())


# --- shards ---


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
@torch.no_grad()
def test_shards_in_and_out(kind, tmp_path):
    theirs = oracle(kind, tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    ours = hf.load(tmp_path / "theirs")
    same_tensors(ours.state_dict(), hf.load(tmp_path / "whole").state_dict())
    hf.save(ours, tmp_path / "ours", shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    same_tensors(tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "whole"))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert torch.equal(again(TOKENS).logits, theirs(TOKENS).logits)


def test_what_stood_there_before_is_gone(tmp_path):
    first, second = hf.new(SMALL, 0), hf.new(SMALL, 1)
    hf.save(first, tmp_path, shard_bytes=10_000)
    hf.save(second, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip
    same_tensors(hf.load(tmp_path).state_dict(), second.state_dict())
    hf.save(first, tmp_path, shard_bytes=10_000)
    assert not (tmp_path / "model.safetensors").exists()
    same_tensors(hf.load(tmp_path).state_dict(), first.state_dict())


@pytest.mark.parametrize("fields", [{}, {"experts": EXPERTS}])
def test_at_most_one_tensor_is_held_beside_the_model(fields, tmp_path, monkeypatch):
    model = hf.new(changed(**fields), 0)
    hf.save(model, tmp_path, shard_bytes=20_000)
    sizes = [t.nbytes for t in tensors_of(tmp_path).values()]
    alive, most = weakref.WeakSet(), [0]
    read = Shards._stretch  # whatever is read of a folder

    def counted(*where):
        found = read(*where)
        alive.add(found)
        most[0] = max(most[0], sum(each.nbytes for each in alive))
        return found

    monkeypatch.setattr(Shards, "_stretch", counted)
    hf.load(tmp_path, dtype=torch.float64)  # of another type, so that nothing that is read can stay
    assert 0 < most[0] <= max(sizes)


@pytest.mark.parametrize("kind", ["phi3", "mixtral"])
def test_pieces_end_where_they_like(kind, tmp_path, monkeypatch):
    oracle(kind, tmp_path)
    whole = hf.load(tmp_path, dtype=torch.float64)
    monkeypatch.setattr(hf, "PIECE", {"cpu": 37})
    same_tensors(hf.load(tmp_path, dtype=torch.float64).state_dict(), whole.state_dict())
    assert torch.equal(whole.head.float(), hf.load(tmp_path).head)


# --- hostile folders ---


@pytest.fixture
def sharded(tmp_path):
    hf.save(hf.new(SMALL, 0), tmp_path / "model", shard_bytes=20_000)
    return tmp_path / "model"


def reindex(folder, edit):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    edit(index["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("native", [True, False])
def test_index_that_names_a_pickle(sharded, native):
    torch.save({"model.norm.weight": torch.ones(32)}, sharded / "extra.bin")
    reindex(sharded, lambda names: names.update({"model.norm.weight": "extra.bin"}))
    with pytest.raises(DataError, match=r"maybe a pickle|cannot be read"):
        hf.load(sharded, native=native)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b", "..", "", 7, None])
def test_index_that_leads_outside(sharded, name, native):
    shutil.copy(next(sharded.glob("model-*")), sharded.parent / "model.safetensors")
    reindex(sharded, lambda names: names.update({"model.norm.weight": name}))
    with pytest.raises(DataError, match=r"outside its folder[\s\S]*model.norm.weight"):
        hf.load(sharded, native=native)


def test_shard_that_is_missing(sharded):
    file = sorted(sharded.glob("model-*.safetensors"))[1]
    file.unlink()
    with pytest.raises(DataError, match=file.name):
        hf.load(sharded)


def test_index_that_promises_too_much(sharded):
    reindex(sharded, lambda names: names.update({"model.extra": names["model.norm.weight"]}))
    with pytest.raises(DataError, match=r"model\.extra"):
        hf.load(sharded)


def test_tensor_that_two_shards_hold(sharded):
    one, two = sorted(sharded.glob("model-*.safetensors"))[:2]
    name, tensor = next(iter(load_file(one).items()))
    save_file({**load_file(two), name: tensor + 1}, two)
    with pytest.raises(DataError, match=f"two shards hold {name}"):
        hf.load(sharded)


def test_index_that_names_a_tensor_twice(sharded):
    file = sharded / "model.safetensors.index.json"
    line = '"model.norm.weight": "model-00001-of-00002.safetensors",'
    file.write_text(file.read_text().replace('"weight_map": {', '"weight_map": {' + line))
    with pytest.raises(DataError, match=r"model.norm.weight is named twice"):
        hf.load(sharded)


def header(folder, edit):
    """model.safetensors with another header over the same data."""
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    text = edit(whole[8 : 8 + length].decode().rstrip()).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])


@pytest.fixture
def single(tmp_path):
    hf.save(hf.new(SMALL, 0), tmp_path / "model")
    return tmp_path / "model"


def test_header_that_lies(single):
    before = (single / "model.safetensors").read_bytes()
    for old, new in (
        ('"F32"', '"F16"'),  # half as many bytes as there are
        ('"shape":[32]', '"shape":[64]'),
        ('"shape":[32]', '"shape":[-32]'),
        ('"data_offsets":[0,', '"data_offsets":[4,'),
    ):
        header(single, lambda text, old=old, new=new: text.replace(old, new, 1))
        with pytest.raises(DataError, match="lies about its tensors"):
            hf.load(single)
        (single / "model.safetensors").write_bytes(before)


def test_header_that_names_a_tensor_twice(single):
    def twice(text):
        first = text.index('"model.norm.weight"')
        end = text.index("}", first) + 1
        return "{" + text[first:end] + "," + text[1:]

    header(single, twice)
    with pytest.raises(DataError, match=r"model.norm.weight is named twice"):
        hf.load(single)


def test_numbers_that_are_no_weights(single):
    header(single, lambda text: text.replace('"F32"', '"I32"'))
    with pytest.raises(DataError, match="does not hold weights"):
        hf.load(single)


def test_wrong_shape_is_refused_before_it_is_read(single, monkeypatch):
    tensors = load_file(single / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.ones(48, 33)
    save_file(tensors, single / "model.safetensors")
    monkeypatch.setattr(Shards, "_stretch", None)
    with pytest.raises(DataError, match=r"layers.1.mlp.up_proj.weight has another shape"):
        hf.load(single)


def test_code_of_the_folder_is_never_run(single):
    raw = config_of(single)
    (single / "evil.py").write_text("raise SystemExit('ran')\n")
    raw |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }
    (single / "config.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="transformers cannot load"):
        hf.load(single)
