"""The plan's budget: which model each stage has, its tokens, what fits, and what would make it fit."""

import json
import shlex
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from endonym.cli import app
from endonym.core import recipe as recipes
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.plan import plan
from endonym.core.runner import run
from endonym.core.stage import Slot
from endonym.core.store import Store
from endonym.eval.run import ROWS as ASKED
from endonym.model.budget import flops_per_token, parameters
from endonym.model.config import ModelConfig
from endonym.model.presets import PRESETS
from endonym.model.to_hub import config_to
from endonym.stages.budget import ROWS, budgets, quantity, size, total
from endonym.stages.machine import GPUS, USABLE, Machine, gpu
from endonym.stages.shapes import Shapes
from endonym.stages.table import stage
from endonym.train.work import PEAKS

BASE = ModelConfig(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    qk_norm=True,
)

CHAIN = """
[stages.text]
use = "documents"
sources = [{ builtin = "almanac", language = "en", amount = 20 }]
[stages.talk]
use = "conversations"
sources = [{ builtin = "almanac", language = "en", amount = 30 }]
[stages.exam]
use = "items"
sources = [{ builtin = "almanac", language = "en", amount = 25 }]
[stages.base]
use = "import"
path = "base"
[stages.words]
use = "extend"
base = "@base"
text = "@text"
vocab_size = 1500
[stages.grown]
use = "operate"
input = "@base"
tokenizer = "@words"
vocabulary = { multiple = 64 }
[stages.cpt]
use = "pretrain"
model = "@grown"
text = "@text"
steps = 10
rows_per_step = 4
row_length = 128
learning_rate = 1e-3
[stages.sft]
use = "sft"
model = "@cpt"
data = "@talk"
[stages.scores]
use = "evaluate"
model = "@sft"
items = { en = "@exam" }
"""

PAPER = """
[stages.talk]
use = "conversations"
sources = [{ path = "nowhere/talk.jsonl", name = "talk", licence = "none" }]
[stages.base]
use = "import"
hub = "Qwen/Qwen3-8B-Base"
[stages.sft]
use = "sft"
model = "@base"
data = "@talk"
"""


def steps_of(text, folder, *sets, absent=None):
    (folder / "recipe.toml").write_text(text)
    loaded = recipes.load(folder / "recipe.toml", None, list(sets))
    return plan(loaded, Store(folder / "store"), stage, (folder,), absent=absent)


@pytest.fixture
def chain(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config_to(BASE)))
    text = CHAIN.replace('"base"', f'"{tmp_path}/base"', 1)
    return lambda *sets: steps_of(text, tmp_path, *sets)


def paper(folder, *sets):
    return steps_of(PAPER, folder, *sets, absent={})


# ---------------------------------------------------------------- models


def test_the_model_is_followed_from_stage_to_stage(chain):
    shapes = Shapes(chain())
    assert parameters(shapes.model("base")) == parameters(BASE)
    grown = shapes.model("grown")
    assert grown.vocab_size == 1536  # 1500, padded to a multiple of 64
    assert shapes.model("cpt") == shapes.model("sft") == grown
    assert grown.model_copy(update={"vocab_size": 1000}) == shapes.model("base")


def test_an_architecture_takes_its_rows_from_the_tokenizer(tmp_path):
    text = """
    [stages.text]
    use = "documents"
    sources = [{ builtin = "almanac", language = "en", amount = 20 }]
    [stages.words]
    use = "tokenizer"
    text = "@text"
    vocab_size = 700
    [stages.base]
    use = "pretrain"
    tokenizer = "@words"
    text = "@text"
    architecture.hidden_size = 64
    architecture.intermediate_size = 128
    architecture.num_hidden_layers = 2
    architecture.num_attention_heads = 4
    steps = 3
    learning_rate = 1e-3
    """
    shapes = Shapes(steps_of(text, tmp_path))
    assert shapes.model("base").vocab_size == 700
    fixed = Shapes(steps_of(text, tmp_path, "base.architecture.vocab_size=704"))
    assert fixed.model("base").vocab_size == 704


@pytest.mark.parametrize(
    ("hub", "preset"),
    [
        ("Qwen/Qwen3-8B-Base", "qwen3-8b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("LGAI-EXAONE/K-EXAONE-236B-A23B", "k-exaone"),
    ],
)
def test_a_hub_id_is_known_by_its_preset(tmp_path, monkeypatch, hub, preset):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    steps = paper(tmp_path, f"base.hub={hub}")
    assert Shapes(steps).model("sft") == PRESETS[preset]


def test_what_was_fetched_before_is_read(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(config_to(BASE)))
    cached = str(tmp_path / "config.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: cached)
    assert parameters(Shapes(paper(tmp_path)).model("sft")) == parameters(BASE)


def test_an_unknown_model_is_said_to_be_unknown(tmp_path, chain):
    steps = paper(tmp_path, "base.hub=somebody/else")
    found = budgets(steps, Machine(gpu("H100")), tokens={"sft": 1e9})["sft"]
    assert found.unknown == ["model: unknown until somebody/else is fetched"]
    assert found.tokens == 1e9
    assert found.flops is found.memory is found.fits is found.hours is None
    (tmp_path / "base" / "config.json").write_text('{"model_type": "gemma9"}')
    assert "gemma9" in budgets(chain(), Machine())["cpt"].unknown[0]
    (tmp_path / "base" / "config.json").write_text("{")
    assert "cannot be read" in budgets(chain(), Machine())["cpt"].unknown[0]


# ---------------------------------------------------------------- tokens and hours


def test_tokens_of_steps_and_of_answers(chain):
    found = budgets(chain(), Machine())
    assert list(found) == ["cpt", "sft", "scores"]
    assert found["cpt"].tokens == 10 * 4 * 128
    assert found["scores"].tokens == 2 * 25 * 64  # greedy and sampled, 64 tokens at most
    grown = BASE.model_copy(update={"vocab_size": 1536})
    assert found["cpt"].flops == 10 * 4 * 128 * flops_per_token(grown, 128)
    assert found["sft"].tokens is None and "no tokenizer has cut" in found["sft"].unknown[0]
    assert budgets(chain("sft.steps=2"), Machine())["sft"].tokens == 2 * 32 * 16384


def test_epochs_are_counted_on_conversations_that_stand(tmp_path):
    text = """
    [stages.text]
    use = "documents"
    sources = [{ builtin = "almanac", language = "en", amount = 60 }]
    [stages.talk]
    use = "conversations"
    sources = [{ builtin = "almanac", language = "en", amount = 300 }]
    [stages.words]
    use = "tokenizer"
    text = "@text"
    vocab_size = 400
    [stages.base]
    use = "pretrain"
    tokenizer = "@words"
    text = "@text"
    architecture.hidden_size = 16
    architecture.intermediate_size = 16
    architecture.num_hidden_layers = 1
    architecture.num_attention_heads = 2
    steps = 1
    row_length = 64
    rows_per_step = 2
    learning_rate = 1e-3
    [stages.sft]
    use = "sft"
    model = "@base"
    data = "@talk"
    epochs = 3
    row_length = 256
    rows_per_step = 8
    """
    steps = steps_of(text, tmp_path)
    assert budgets(steps, Machine())["sft"].tokens is None
    context = Context(console=Console(quiet=True))
    loaded = recipes.load(tmp_path / "recipe.toml")
    for name in ("talk", "words"):
        run(loaded, Store(tmp_path / "store"), stage, context, name)
    said = budgets(steps_of(text, tmp_path), Machine())["sft"].tokens
    run(loaded, Store(tmp_path / "store"), stage, context)
    steps = steps_of(text, tmp_path)
    taken = steps["sft"].found.figures["tokens"]
    assert said == pytest.approx(taken, rel=0.1)
    assert budgets(steps, Machine())["sft"].tokens == taken  # what stands is exact
    sums = total(budgets(steps, Machine(gpu("H100"))), steps)
    assert sums == {"flops": None, "hours": None, "cost": None, "unknown": []}


def test_hours_and_cost_are_arithmetic(chain):
    machine = Machine(gpu("A100-80GB"), count=4, price=2.0, mfu=0.5)
    found = budgets(chain(), machine)["cpt"]
    assert found.hours == pytest.approx(found.flops / (4 * 312e12 * 0.5) / 3600)
    assert found.cost == pytest.approx(found.hours * 4 * 2.0)
    assert budgets(chain(), replace(machine, price=None))["cpt"].cost is None
    assert budgets(chain(), Machine())["cpt"].hours is None
    wide = budgets(chain("cpt.precision=float32"), machine)["cpt"]
    assert wide.hours is None and "float32" in wide.unknown[0]


def test_writing_is_no_faster_than_its_weights_are_read(chain):
    found = budgets(chain(), Machine(gpu("H100")))["scores"]
    batches = found.tokens / 32
    least = batches * (found.memory.weights + found.memory.cache) / 3.35e12
    assert found.hours == pytest.approx(least / 3600, rel=1e-6)


def test_typhoon_s_fits_its_two_days(tmp_path, monkeypatch):
    """Two days on 8 H100 for 8B, SFT and distillation together. The paper gives no tokens: 340k
    conversations, 2 epochs, and between 500 and 8,000 tokens each, which is our bracket."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    machine = Machine(gpu("H100"), 8, rows_per_device=1, checkpointing=True)
    for each, hours in ((500, 2.4), (2000, 9.5), (8000, 38.1)):
        found = budgets(paper(tmp_path), machine, tokens={"sft": 2 * 340_000 * each})["sft"]
        assert found.fits and found.hours == pytest.approx(hours, rel=0.03)
        assert found.hours < 48
    assert found.parameters.total / 1e9 == pytest.approx(8.19, abs=0.005)


def test_a_teacher_is_read_and_held(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    text = PAPER + '[stages.big]\nuse = "import"\nhub = "Qwen/Qwen3-30B-A3B"\n'
    steps = steps_of(text, tmp_path, absent={})
    plain = budgets(steps, Machine(gpu("H200"), 8), tokens={"sft": 1e9})["sft"]
    sft = steps["sft"]
    slots = sft.stage.slots | {"teacher": Slot("model")}
    steps["sft"] = replace(
        sft, stage=replace(sft.stage, slots=slots), inputs=sft.inputs | {"teacher": "big"}
    )
    found = budgets(steps, Machine(gpu("H200"), 8), tokens={"sft": 1e9})["sft"]
    teacher = PRESETS["qwen3-30b-a3b"]
    assert found.memory.teacher > 2 * parameters(teacher).total / 8
    more = flops_per_token(teacher, 16384, backward=False)
    assert found.flops - plain.flops == pytest.approx(1e9 * more)


# ---------------------------------------------------------------- phases, optimizers, adapters

PHASES = """
[stages.long]
use = "pretrain"
model = "@base"
text = "@text"
rows_per_step = 4
row_length = 128
learning_rate = 1e-3
phases = [{ steps = 10 }, { tokens = 40960, row_length = 512, rows_per_step = 8 }]
[stages.judge]
use = "reward_model"
model = "@sft"
data = "@pairs"
steps = 2
[stages.pairs]
use = "preferences"
sources = [{ builtin = "fluency", language = "en", amount = 20 }]
[stages.mean]
use = "merge"
inputs = { one = "@sft", two = "@cpt" }
merge_method = "linear"
models = [{ model = "one", parameters = { weight = 1 } }, { model = "two", parameters = { weight = 1 } }]
[stages.last]
use = "evaluate"
model = "@mean"
items = { en = "@exam" }
"""


@pytest.fixture
def longer(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config_to(BASE)))
    text = (CHAIN + PHASES).replace('"base"', f'"{tmp_path}/base"', 1)
    return lambda *sets: steps_of(text, tmp_path, *sets)


def test_a_run_in_phases_is_their_sum_and_takes_the_memory_of_the_largest(longer):
    found = budgets(longer(), Machine())["long"]
    assert found.tokens == 10 * 4 * 128 + 40960
    assert found.flops == pytest.approx(
        5120 * flops_per_token(BASE, 128) + 40960 * flops_per_token(BASE, 512)
    )
    alone = budgets(longer("long.phases=[{steps=10,row_length=512,rows_per_step=8}]"), Machine())
    assert found.memory == alone["long"].memory
    few = budgets(longer("long.phases=[{steps=10}]"), Machine())["long"]
    assert few.memory.total < found.memory.total
    given = budgets(longer(), Machine(), tokens={"long": 2 * 46080})["long"]
    assert given.flops == pytest.approx(2 * found.flops), "shared out as the phases are"


def test_what_learns_and_how_changes_the_memory(longer):
    def memory(*sets):
        return budgets(longer(*sets), Machine())["long"].memory

    plain, count = memory(), parameters(BASE)
    assert memory('long.optimizer="adamw8bit"').optimizer < plain.optimizer / 3.5
    one = memory('long.optimizer="muon"').optimizer
    assert one == pytest.approx(4 * (count.total - count.embedding) + 8 * count.embedding)
    assert memory("long.ema=0.99").total == plain.total + 4 * count.total
    lora = memory("long.adapter={rank=4}")
    assert lora.gradients < plain.gradients / 10 and lora.optimizer < plain.optimizer / 10
    quantised = memory('long.adapter={rank=4,method="qlora"}')
    assert quantised.weights < lora.weights


def test_a_reward_model_and_a_mean_keep_the_shape(longer):
    steps = longer()
    shapes, found = Shapes(steps), budgets(steps, Machine())
    assert shapes.model("judge") == shapes.model("mean") == shapes.model("cpt")
    assert found["judge"].tokens == 2 * 128 * 4096
    assert found["last"].parameters == parameters(shapes.model("cpt"))


def test_a_window_that_is_switched_off_is_followed_through_depth(tmp_path, monkeypatch):
    """phi-3-medium to JAI-1, before its experts: 22.46B (section 3.1.2)."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    text = """
    [stages.base]
    use = "import"
    hub = "microsoft/Phi-3-medium-4k-instruct"
    [stages.deep]
    use = "operate"
    input = "@base"
    depth = { block = 4, copies = [1, 1, 1, 2, 3, 3, 2, 1, 1, 1] }
    context = { length = 32768, theta = 1e6, window = "off" }
    """
    deep = Shapes(steps_of(text, tmp_path)).model("deep")
    assert (deep.num_hidden_layers, deep.max_position_embeddings) == (64, 32768)
    assert deep.sliding_window is None and deep.layer_types is None
    assert parameters(deep).total / 1e9 == pytest.approx(21.8 + 2 * 32064 * 5120 / 1e9, abs=0.05)


# ---------------------------------------------------------------- what fits


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("count", [1, 8])
def test_each_remedy_is_enough(tmp_path, monkeypatch, name, count):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    steps, machine = paper(tmp_path), Machine(GPUS[name], count)
    found = budgets(steps, machine)["sft"]
    assert found.fits is (found.memory.total <= USABLE * GPUS[name].memory)
    assert found.fits or found.remedies
    for remedy in found.remedies:
        changed, sets, words = machine, [], shlex.split(remedy)
        if words[0] == "row_length":
            sets = [f"sft.row_length={words[2]}"]
        for word, value in zip(words, [*words[1:], ""]):
            change = {
                "--gpu": lambda v: {"gpu": gpu(v)},
                "--count": lambda v: {"count": int(v)},
                "--rows-per-device": lambda v: {"rows_per_device": int(v)},
                "--checkpointing": lambda v: {"checkpointing": True},
            }.get(word)
            changed = replace(changed, **change(value)) if change else changed
        assert changed != machine or sets
        assert budgets(paper(tmp_path, *sets), changed)["sft"].fits, remedy


def test_more_of_anything_takes_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    steps = paper(tmp_path)

    def taken(**changes):
        return budgets(steps, Machine(gpu("H100"), **changes))["sft"].memory.total

    assert taken(count=8) < taken(count=2) < taken()
    assert taken(rows_per_device=1) < taken(rows_per_device=2) < taken()
    assert taken(checkpointing=True) < taken()
    # 8 GPUs share the 32 rows of a step; what is left to each is 4, however many are asked for.
    assert taken(count=8, rows_per_device=9) == taken(count=8) == taken(count=8, rows_per_device=4)
    both = budgets(steps, Machine(gpu("H100")))["sft"]
    assert both.kept == taken() and both.checkpointed == taken(checkpointing=True)


def test_facts_that_live_elsewhere_agree():
    assert ROWS == ASKED
    assert PEAKS["NVIDIA H100 80GB HBM3"] == GPUS["H100"].peak
    assert PEAKS["NVIDIA H200"] == GPUS["H200"].peak


def test_gpus_by_other_spellings():
    assert gpu("nvidia h100").name == gpu("H100-80GB").name == "H100"
    assert gpu("a100").name == "A100-80GB" and gpu("RTX 4090").name == gpu("4090").name
    with pytest.raises(RecipeError, match="H10"):
        gpu("H10")


def test_numbers_in_few_letters():
    assert [quantity(n) for n in (320, 1024, 8.19e9, 2e12)] == ["320", "1.02k", "8.19B", "2.00T"]
    assert size(parameters(PRESETS["k-exaone"])) == "236.57B (23.67B active)"


# ---------------------------------------------------------------- the command


def command(folder, text, *words):
    (folder / "recipe.toml").write_text(text)
    places = ["--store", str(folder / "store"), "--data", str(folder)]
    return CliRunner().invoke(app, ["plan", str(folder / "recipe.toml"), *places, *words])


def test_the_command_in_json(tmp_path, chain):
    told = command(tmp_path, CHAIN, "--gpu", "h100", "--count", "2", "--price", "3", "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    rows = {row["name"]: row for row in found["stages"]}
    assert set(rows["cpt"]) == {"name", "use", "address", "hit", "reason", "budget"}
    assert rows["text"]["budget"] is None and rows["text"]["reason"] == "never made"
    cpt = rows["cpt"]["budget"]
    assert cpt["tokens"] == 5120 and cpt["fits"] and cpt["cost"] == cpt["hours"] * 6
    parts = {key: value for key, value in cpt["memory"].items() if key != "total"}
    assert cpt["memory"]["total"] == pytest.approx(sum(parts.values()))
    assert found["budget"]["gpu"] == "H100" and found["budget"]["unknown"] == ["sft"]
    assert found["budget"]["cost"] == pytest.approx(
        sum(rows[name]["budget"]["cost"] for name in ("cpt", "scores"))
    )


def test_the_command_as_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    told = command(tmp_path, PAPER, "--gpu", "H100", "--count", "8", "--tokens", "sft=1e9")
    assert told.exit_code == 0, told.output
    for words in ("8.19B", "1.00B", "sft does not fit H100; it would with --checkpointing"):
        assert words in told.output


def test_a_missing_data_file_is_named_and_the_rest_is_planned(tmp_path):
    told = command(tmp_path, PAPER, "--json")
    rows = {row["name"]: row for row in json.loads(told.stdout)["stages"]}
    assert rows["talk"]["reason"] == "a data file is missing: nowhere/talk.jsonl"
    assert rows["sft"]["reason"] == "a data file of @talk is missing"
    assert rows["talk"]["address"] is rows["sft"]["address"] is None
    assert rows["base"]["address"] and not rows["sft"]["hit"]
    with pytest.raises(DataError, match="a data file is missing"):
        steps_of(PAPER, tmp_path)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--gpu", "H10"], "no GPU 'H10'"),
        (["--price", "3"], "need a GPU"),
        (["--gpu", "H100", "--mfu", "1.5"], "share of the peak"),
        (["--tokens", "sft"], "STAGE=N"),
        (["--tokens", "sft=-1"], "STAGE=N"),
        (["--tokens", "sft=nan"], "STAGE=N"),
        (["--tokens", "base=1e9"], "takes none"),
    ],
)
def test_bad_words_are_refused_by_name(tmp_path, words, what):
    told = command(tmp_path, PAPER, *words)
    assert isinstance(told.exception, RecipeError) and what in told.exception.what


# ---------------------------------------------------------------- stages that learn from their own answers

LEARNT = (
    PAPER
    + """
[stages.teacher]
use = "import"
hub = "Qwen/Qwen3-30B-A3B-Instruct-2507"
[stages.exam]
use = "items"
sources = [{ builtin = "almanac", language = "en", amount = 64 }]
[stages.opd]
use = "distill"
model = "@sft"
teacher = "@teacher"
data = "@talk"
steps = 100
[stages.policy]
use = "rl"
model = "@opd"
prompts = "@exam"
knowledge = "@talk"
reward = { answer = 1.0 }
steps = 50
"""
)
EIGHT = Machine(gpu=gpu("H100"), count=8, price=2.0)


def learnt(folder, *sets):
    steps = steps_of(LEARNT, folder, *sets, absent={})
    return budgets(steps, EIGHT), steps


def test_a_distillation_is_student_teacher_and_the_answers_drawn(tmp_path):
    one = learnt(tmp_path)[0]["opd"]
    student, teacher = PRESETS["qwen3-8b"], PRESETS["qwen3-30b-a3b"]
    tokens = 100 * 64 * 4096
    answers = 100 * 64 * 0.25
    assert one.tokens == tokens
    learning = flops_per_token(student, 4096) + flops_per_token(teacher, 4096, backward=False)
    writing = answers * 2048 * flops_per_token(student, 2048, backward=False)
    assert one.flops == pytest.approx(tokens * learning + writing)
    trained = tokens * learning / (8 * EIGHT.gpu.peak * EIGHT.mfu)
    # Each of 100 batches is 2,048 passes over two bytes a weight and two answers' caches of 3,072 tokens.
    cache = 2 * 3072 * 36 * 2 * 8 * 128 * 2
    read = (2 * parameters(student).total + cache) / EIGHT.gpu.bandwidth
    assert 3600 * one.hours == pytest.approx(trained + 100 * 2048 * read)
    assert one.memory.teacher > 2 * parameters(teacher).total / 8


def test_without_own_answers_nothing_is_drawn(tmp_path):
    both, none = (learnt(tmp_path, f"opd.lmbda={share}")[0]["opd"] for share in (1, 0))
    assert none.hours < both.hours and none.flops < both.flops and none.tokens == both.tokens


def test_reinforcement_is_answers_with_their_prompts_and_the_text_beside_them(tmp_path):
    found, _ = learnt(tmp_path)
    one = found["policy"]
    assert one.tokens == 50 * (32 * 8 * (2048 + 4096) + 0.6 * 64 * 6144)
    alone, _ = learnt(tmp_path, "policy.ink.lmbda=0")
    assert alone["policy"].tokens == 50 * 32 * 8 * (2048 + 4096)
    twice, _ = learnt(tmp_path, "policy.updates=2", "policy.steps=100", "policy.ink.lmbda=0")
    assert twice["policy"].tokens == alone["policy"].tokens
    assert twice["policy"].hours == pytest.approx(alone["policy"].hours)
    assert one.memory.teacher == 0
    reference, _ = learnt(tmp_path, "policy.beta=0.1")
    assert reference["policy"].memory.teacher > 0 and reference["policy"].flops > one.flops


def test_epochs_of_prompts_wait_for_the_prompts(tmp_path):
    text = LEARNT.replace("steps = 50\n", "epochs = 2\n")
    steps = steps_of(text, tmp_path, absent={})
    one = budgets(steps, EIGHT)["policy"]
    assert one.tokens is None and "epochs of @exam" in one.unknown[0]
