"""The recipe itself: its addresses, its scales, and the whole chain at an even smaller scale."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from endonym.core import recipe as recipes
from endonym.core.plan import plan
from endonym.core.store import Store
from endonym.stages.table import stage

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "typhoon_s.toml"
GOLDEN = Path(__file__).with_name("golden_addresses.json")

# Everything as in the tiny scale but for amounts.
SMALL = [
    "text.sources=[{builtin='almanac',language='${language}',amount=150},{builtin='handbook',language='${language}'}]",
    "replay.sources=[{builtin='almanac',language='en',amount=150}]",
    "logs.sources=[{builtin='bylaws',language='${language}',groups=['practice'],amount=20,top=1}]",
    "few_logs.sources=[{builtin='bylaws',language='${language}',groups=['practice'],amount=20,top=1}]",
    "logs_replay.sources=[{builtin='bylaws',language='en',groups=['practice'],amount=40,top=1}]",
    "held_out.sources=[{builtin='almanac',language='${language}',split='test',amount=8}]",
    "held_out_replay.sources=[{builtin='almanac',language='en',split='test',amount=8}]",
    "exam.sources=[{builtin='almanac',language='${language}',amount=12}]",
    "exam_replay.sources=[{builtin='almanac',language='en',amount=8}]",
    "dialogues.sources=[{builtin='almanac',language='${language}',amount=60}]",
    "teacher_dialogues.sources=[{builtin='almanac',language='${language}',amount=60}]",
    "searches.sources=[{builtin='bylaws',language='${language}',groups=['practice'],amount=8,top=1}]",
    "questions.sources=[{builtin='almanac',language='${language}',split='train',amount=40,forms=['question','constraint']}]",
    "questions_replay.sources=[{builtin='almanac',language='en',split='train',amount=40,forms=['question','constraint']}]",
    *(
        f"exam_{name}.sources=[{{builtin='bylaws',language='${{language}}',groups=['{group}'],tasks=['act'],amount=4}}]"
        for name, group in (("known", "old"), ("injected", "text"), ("unseen", "never"))
    ),
    "base_tokenizer.vocab_size=400",
    "tokenizer.vocab_size=500",
    "base.architecture.hidden_size=32",
    "base.architecture.intermediate_size=64",
    "base.architecture.num_hidden_layers=2",
    "base.architecture.max_position_embeddings=1536",
    "base.phases=[{steps=3,mixture={logs=0.8,replay=0.2}},{steps=3,mixture={replay=0.8,logs=0.2}}]",
    "cpt.phases=[{steps=3,mixture={logs=1,target=0}},{steps=3,mixture={target=0.4,laws=0.2,replay=0.2,logs=0.2}}]",
    "sft.steps=6",
    "sft.row_length=1536",
    "teacher.steps=6",
    "teacher.row_length=1536",
    "opd.steps=3",
    "opd.rows_per_step=4",
    "opd.row_length=1536",
    "opd.max_completion=8",
    "ink.steps=3",
    "ink.prompts_per_step=2",
    "ink.group=2",
    "ink.ink.rows=4",
    "ink.ink.rho=1.0",
    "ink.sampling.max_tokens=8",
    "ink.row_length=256",
    "agentic.steps=2",
    "agentic.prompts_per_step=1",
    "agentic.group=2",
    "agentic.sampling.max_tokens=8",
    "agentic.row_length=1536",
]


def steps_of(scale, sets, folder):
    return plan(recipes.load(RECIPE, scale, sets), Store(folder), stage)


def addresses(scale, folder, sets=()):
    return {name: step.address for name, step in steps_of(scale, list(sets), folder).items()}


def test_addresses_are_the_reviewed_ones(tmp_path):
    """A change here means: everybody's finished stages of that name will run again.

    To accept it: ENDONYM_WRITE_GOLDEN=1 pytest tests/recipes, and say in the commit why.
    """
    found = {"tiny": addresses("tiny", tmp_path)}
    if os.environ.get("ENDONYM_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_the_laptop_scale_keeps_its_addresses(tmp_path):
    """On real files, whose bytes bear identity; see the test above for how a change is accepted."""
    from tokenizer.samples import shared

    if not (shared() / "text/th/thai_law_acts.jsonl.gz").is_file():
        pytest.skip("the files are not here")
    golden = GOLDEN.with_name("golden_laptop.json")
    steps = plan(recipes.load(RECIPE, "laptop", []), Store(tmp_path), stage, data=(shared(),))
    found = {name: step.address for name, step in steps.items()}
    if os.environ.get("ENDONYM_WRITE_GOLDEN"):
        golden.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(golden.read_text())


def test_the_laptop_scale_asks_in_training_about_no_term_that_it_counts_as_unasked():
    """The recipe's groups of laws are apart, and each stage takes the ones that its name says."""
    laptop = recipes.load(RECIPE, "laptop")
    books = {
        name: {book for source in node.settings["sources"] for book in source.get("books", [])}
        for name, node in laptop.nodes.items()
        if node.use == "sections"
    }
    groups = [books[f"{name}_terms"] for name in ("known", "new", "never", "practice")]
    assert [len(one) for one in groups] == [6, 7, 6, 13]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert books["known_laws"] == books["known_terms"] and books["statutes"] == books["new_terms"]
    assert books["practice_laws"] == books["practice_terms"] and not books["shelf"]
    plugged = {
        name: {one.removeprefix("@") for one in node.settings["sections"]}
        for name, node in laptop.nodes.items()
        if "sections" in node.settings and node.use != "recite"
    }
    readers = {
        of: {n for n, used in plugged.items() if f"{of}_terms" in used} for of in ("new", "never")
    }
    assert readers["never"] == {"exam_unseen"}
    assert readers["new"] == {"exam_injected", "new_text", "new_questions"}
    halves = {
        name: laptop.nodes[name].settings["sources"][0]["groups"]
        for name in ("exam_injected", "new_questions", "exam_known", "exam_told", "law_dialogues")
    }
    assert halves["exam_injected"] == halves["exam_told"] == ["text"]
    assert halves["new_questions"] == halves["exam_known"] == halves["law_dialogues"] == ["asked"]
    asked = set(laptop.nodes["agentic"].settings["prompts"].values())
    assert asked == {"@known_questions", "@new_questions", "@practice_questions"}


def test_a_changed_rate_changes_only_what_follows(tmp_path):
    before, after = (
        addresses("tiny", tmp_path),
        addresses("tiny", tmp_path, ["cpt.learning_rate=1e-3"]),
    )
    changed = {name for name in before if before[name] != after[name]}
    models = {"cpt", "sft", "teacher", "opd", "ink", "agentic"}
    assert changed == models | {f"eval_{name}" for name in models}


def test_another_language_is_one_word(tmp_path):
    before, after = addresses("tiny", tmp_path), addresses("tiny", tmp_path, ["vars.language=ko"])
    same = {name for name in before if before[name] == after[name]}
    assert {"replay", "base_tokenizer", "exam_replay"} <= same and "text" not in same


def command(*words, **options):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "endonym.cli", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        timeout=300,
        **options,
    )


def run_words(store, *more):
    sets = [word for setting in SMALL for word in ("--set", setting)]
    return ["run", RECIPE, "--scale", "tiny", "--store", store, "--threads", 1, *sets, *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The small chain, killed twice on its way and run again until it is done."""
    store = tmp_path_factory.mktemp("chain") / "store"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "endonym.cli", *map(str, run_words(store))]
    for seconds in (4.0, 9.0):
        child = subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = command(*run_words(store, "--json"))
    assert done.returncode == 0, done.stderr[-3000:]
    return store, json.loads(done.stdout), done.stderr


ROWS = ["base", "+CPT", "+SFT", "teacher", "+OPD", "+InK-GRPO", "+agentic"]


def test_the_chain_runs_and_ends_with_a_scoreboard(finished):
    _store, told, _ = finished
    rows = told["scoreboard"]["rows"]
    assert [row["label"] for row in rows] == ROWS
    for row in rows:
        assert row["figures"]["bpb_th"]["value"] > 0 and row["figures"]["bpb_th"]["n"] == 8
    (statutes,) = told["boards"]
    assert [row["label"] for row in statutes["rows"]] == [ROWS[2], *ROWS[4:]]
    assert statutes["rows"][-1]["figures"]["agent_unseen"]["n"] == 4
    ink = told["stages"]["ink"]["figures"]
    assert ink["steps"] == ink["text_steps"] == 3 and set(ink["rewards"]) >= {"reward", "answer"}
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert all(name in page for name in told["stages"])
    assert told["chat"].startswith("endonym chat typhoon_s-tiny/opd")


def test_a_second_run_executes_nothing_and_imports_no_torch(finished):
    store, _told, _ = finished
    again = command(*run_words(store, "--json"))
    assert json.loads(again.stdout)["executed"] == 0
    code = "import sys; from endonym.cli import app; sys.argv = ['endonym', *sys.argv[1:]]\n"
    code += "try:\n    app()\nexcept SystemExit as e:\n    assert not e.code\n"
    code += "assert 'torch' not in sys.modules"
    words = list(map(str, run_words(store, "--quiet")))
    light = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT
    )
    assert light.returncode == 0, light.stderr[-2000:]


def test_the_result_is_an_ordinary_folder(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from endonym.tokenizer.folder import Tokenizer

    store, _, _ = finished
    folder = (store / "runs" / "typhoon_s-tiny" / "sft").resolve()
    theirs = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    assert model.get_input_embeddings().num_embeddings >= len(theirs)
    chat = [{"role": "user", "content": "48 อ่านว่าอะไร"}]
    text = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode_prompt(chat)


def test_exam_questions_stand_in_no_training_row(finished):
    from endonym.data.document import Conversation, read_table
    from endonym.tasks.base import read_items

    store, _, _ = finished
    runs = store / "runs" / "typhoon_s-tiny"
    asked = {item.messages[-1]["content"] for item in read_items(runs / "exam" / "items.parquet")}
    taught = {
        message["content"]
        for row in read_table(runs / "dialogues" / "conversations.parquet", Conversation)
        for message in row.messages
    }
    assert asked and not asked & taught


def test_chat_answers_lines_from_a_pipe(finished):
    store, _, _ = finished
    said = command("chat", "typhoon_s-tiny/sft", "--store", store, "--max-tokens", 8, input="48?\n")
    assert said.returncode == 0, said.stderr[-2000:]


def test_why_show_audit_and_report(finished):
    store, _told, _ = finished
    sets = [word for setting in [*SMALL, "cpt.learning_rate=1e-3"] for word in ("--set", setting)]
    why = command("why", RECIPE, "cpt", "--scale", "tiny", "--store", store, *sets, "--json")
    assert json.loads(why.stdout)["differences"] == [
        {"field": "config.learning_rate", "stored": 0.01, "wanted": 0.001}
    ]
    show = json.loads(command("show", "typhoon_s-tiny/cpt", "--store", store, "--json").stdout)
    assert show["stage"] == "pretrain" and show["figures"]["steps"] == 6
    audit = json.loads(command("audit", "typhoon_s-tiny/sft", "--store", store, "--json").stdout)
    walked = [row["stage"] for row in audit["artifacts"]]
    assert walked[0] == "sft" and {"documents", "extend", "operate", "pretrain"} <= set(walked)
    assert "CC0-1.0" in audit["licences"]


def test_a_damaged_model_stops_the_run_with_one_message(finished):
    store, _, _ = finished
    file = (store / "runs" / "typhoon_s-tiny" / "cpt").resolve() / "model.safetensors"
    good = file.read_bytes()
    try:
        file.write_bytes(good[:-4] + bytes([good[-4] ^ 1]) + good[-3:])
        bad = command(*run_words(store))
        assert bad.returncode == 4 and "Traceback" not in bad.stderr
        assert "model.safetensors" in bad.stderr and "sha256" in bad.stderr
    finally:
        file.write_bytes(good)
    assert command(*run_words(store)).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "recipes/typhoon.toml"], "no such recipe"),
        (["run", RECIPE, "--scale", "huge"], "no scale 'huge'"),
        (["run", RECIPE, "--scale", "tiny", "--set", "cpt.stepz=3"], "did you mean 'steps'"),
        (["run", RECIPE, "--scale", "tiny", "--set", "base.model=@sft"], "circle"),
        (
            ["run", RECIPE, "--scale", "tiny", "--set", "text.sources=[{path='nowhere.jsonl'}]"],
            "missing",
        ),
        (["chat", "nothing-here"], "no store"),
    ],
)
def test_bad_commands_end_in_one_message(words, message, tmp_path):
    bad = command(*words, "--store", tmp_path / "store")
    assert bad.returncode != 0 and "Traceback" not in bad.stderr
    assert message in " ".join(bad.stderr.split())


def settings_of(recipe, name, *slots):
    return {k: v for k, v in recipe.nodes[name].settings.items() if k not in slots}


def test_the_paper_scale_is_the_published_setting():
    """The scripts of the authors' release, as METHODS 2.3, 3.2 and 3b.1 have them."""
    from endonym.stages.distill import DistillConfig
    from endonym.stages.rl import RlConfig
    from endonym.stages.sft import SftConfig

    paper = recipes.load(RECIPE, "paper")
    assert not {"cpt", "tokenizer", "grown"} & set(paper.nodes)
    sft = SftConfig.read(settings_of(paper, "sft", "model", "data"))
    assert (sft.learning_rate, sft.schedule, sft.warmup, sft.epochs) == (2e-5, "cosine", 0.05, 2)
    assert (sft.row_length, sft.rows_per_step, sft.packed) == (16384, 32, True)
    opd = DistillConfig.read(settings_of(paper, "opd", "model", "teacher", "data"))
    assert (opd.learning_rate, opd.schedule, opd.warmup, opd.steps) == (1e-6, "cosine", 0.05, 2500)
    assert (opd.lmbda, opd.beta, opd.temperature, opd.top_k) == (0.25, 0.0, 1.0, None)
    assert (opd.sampling.temperature, opd.sampling.top_p) == (1.0, 0.95)
    assert (opd.rows_per_step, opd.row_length, opd.max_completion) == (64, 4096, 2048)
    slots = ("model", "prompts", "knowledge", "library")
    ink = RlConfig.read(settings_of(paper, "ink", *slots))
    assert (ink.ink.lmbda, ink.ink.rho, ink.ink.rows) == (0.1, 0.6, 64)
    assert (ink.group, ink.prompts_per_step, ink.updates, ink.epochs) == (8, 32, 1, 2)
    assert (ink.clip_low, ink.clip_high, ink.beta, ink.scale) == (0.2, 0.24, 0.0, "std")
    assert (ink.sampling.temperature, ink.sampling.max_tokens, ink.learning_rate) == (
        0.7,
        4096,
        1e-6,
    )
    assert ink.reward["rubric"]["weight"] == 0.9
    assert ink.reward["format"] == {"weight": 0.1, "tag": "thinking", "value": 0.5}
    agentic = RlConfig.read(settings_of(paper, "agentic", *slots))
    assert (agentic.ink.rows, agentic.updates, agentic.epochs) == (16, 4, 1)
    assert (agentic.agent.max_turns, agentic.agent.max_tokens) == (5, 8192)
    assert "format" not in agentic.reward


def test_every_scale_loads():
    for scale in recipes.scales_of(RECIPE):
        assert recipes.load(RECIPE, scale).report.rows
