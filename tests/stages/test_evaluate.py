"""The evaluation as a function: its figures from replies that are known, and what a reader is told."""

import json

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError
from endonym.data.sections import write_sections
from endonym.eval import agentic, run
from endonym.eval.agentic import AgenticReply
from endonym.eval.run import judge
from endonym.model import hf
from endonym.stages.evaluate import EvaluateConfig, _column, evaluate
from endonym.synth import bylaws
from endonym.tasks.base import write_items
from eval.tiny import context, model, tokenizer

GOLD = "จอดรถบนสะพาน"
SAID = {  # of the four items, by temperature: what is replied
    0.0: [GOLD, f"ในเมืองนี้ห้าม{GOLD}และอื่น ๆ", "water", f"{GOLD}ครับ"],
    1.0: [GOLD, "water น้ำ", "water", "น้ำ"],
}


@pytest.fixture
def parts(tmp_path):
    """A model folder, an exam of four questions with one gold answer, and a library."""
    hf.save(model(0, 2048), tmp_path / "model", eos_ids={0})
    tokenizer().save(tmp_path / "model")
    items = bylaws.items("th", "test", ["text"], tasks=["act"])[:4]
    items = [type(one)(**vars(one) | {"answer": GOLD}) for one in items]
    folder = tmp_path / "items"
    folder.mkdir()
    write_items(folder / "items.parquet", items)
    shelf = tmp_path / "sections"
    shelf.mkdir()
    write_sections(shelf / "sections.parquet", bylaws.sections("th", ["text", "never"]))
    record = {"files": {"items.parquet": {}, "sections.parquet": {}}, "licences": ["CC0-1.0"]}
    return {
        "model": Artifact(tmp_path / "model", record),
        "items": {"th": Artifact(folder, record)},
        "library": Artifact(shelf, record),
    }


def scored(folder, parts, library=False, **settings):
    out = folder / f"out{len(list(folder.iterdir()))}"
    out.mkdir()
    given = dict(parts) if library else parts | {"library": None}
    outcome = evaluate(
        EvaluateConfig.read(settings), context(out / "scratch"), out, **given, text={}
    )
    kept = [json.loads(line) for line in (out / "values.jsonl").read_text().splitlines()]
    assert {row["figure"]: mean(row["values"]) for row in kept} == pytest.approx(outcome.figures)
    return outcome.figures, json.loads((out / "scores.json").read_text()), out


def mean(values):
    """What items gave, put together: a share, or parts over wholes."""
    pairs = [each if isinstance(each, list) else (each, 1) for each in values]
    return sum(part for part, _ in pairs) / sum(whole for _, whole in pairs)


def canned(monkeypatch, said=SAID):
    """Replies as said; asked: (temperature, seed, ids wanted)."""
    asked = []

    def answers(net, words, items, sampling, context, *, name, title, with_ids=False):
        asked.append((sampling.temperature, sampling.seed, with_ids))
        texts = said[sampling.temperature]
        if callable(texts):
            texts = texts(sampling.seed)
        found = [judge(item, text, 3, "stop") for item, text in zip(items, texts)]
        ids = [[*words.encode(text), words.turn_end_id] if with_ids else [] for text in texts]
        return [type(one)(**vars(one) | {"ids": each}) for one, each in zip(found, ids)]

    monkeypatch.setattr(run, "answers", answers)
    return asked


def test_figures_of_old_settings_are_the_old_ones(tmp_path, parts, monkeypatch):
    asked = canned(monkeypatch)
    figures, scores, out = scored(tmp_path, parts)
    assert figures == {"language_th": 0.75, "answers_th": 0.5, "language_th_sampled": 0.5}
    assert asked == [(0.0, 0, False), (1.0, 0, False)]
    rows = [json.loads(line) for line in (out / "replies.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and "ids" not in rows[0] and "try" not in rows[0]
    assert not (out / "episodes.jsonl").exists()
    assert [column["key"] for column in scores["columns"]] == list(figures)


def test_what_is_asked_for_besides(tmp_path, parts, monkeypatch):
    asked = canned(monkeypatch)
    figures, scores, _ = scored(tmp_path, parts, also=["contains", "sampled", "foreign"])
    assert figures["answers_th"] == 0.5 and figures["contains_th"] == 0.75
    assert figures["answers_th_sampled"] == figures["contains_th_sampled"] == 0.25
    assert figures["mixed_th"] == 0.5
    assert 0 < figures["foreign_th"] < 1 and scores["figures"]["foreign_th"]["n"] == 4
    assert asked == [(0.0, 0, False), (1.0, 0, True)]
    titles = {column["key"]: column["title"] for column in scores["columns"]}
    assert titles["contains_th"] == "Thai answer contained"
    assert titles["answers_th_sampled"] == "Thai answers T=1"
    assert titles["foreign_th"] == "Foreign script mass, Thai T=1"


def test_several_tries_are_different_draws_and_one_right_one_passes(tmp_path, parts, monkeypatch):
    said = {0.0: SAID[0.0], 1.0: lambda seed: ["x"] * seed + [GOLD] + ["x"] * (3 - seed)}
    asked = canned(monkeypatch, said)
    figures, scores, out = scored(tmp_path, parts, tries=3, seed=0)
    assert figures["answers_th_sampled"] == 0.25 and figures["pass3_th"] == 0.75
    assert asked == [(0.0, 0, False), (1.0, 0, False), (1.0, 1, False), (1.0, 2, False)]
    rows = [json.loads(line) for line in (out / "replies.jsonl").read_text().splitlines()]
    assert [row.get("try", 0) for row in rows] == [0] * 8 + [1] * 4 + [2] * 4
    assert scores["columns"][-1]["title"] == "Thai pass@3 T=1"


def test_with_a_library_episodes_are_scored(tmp_path, parts, monkeypatch):
    seen = []

    def agentic_answers(net, words, items, library, sampling, context, *, samples, **rest):
        seen.append((len(library.sections), library.top, library.limit, samples, rest["max_turns"]))
        said = [[GOLD, "x"], ["x", "x"], ["x", GOLD], [GOLD, GOLD]]
        return [
            AgenticReply(**vars(judge(item, text, 3, "stop")), sample=n, calls=int(text == GOLD))
            for item, texts in zip(items, said)
            for n, text in enumerate(texts[:samples])
        ]

    monkeypatch.setattr(agentic, "agentic_answers", agentic_answers)
    canned(monkeypatch)
    agent = {"top": 2, "limit": 300, "max_turns": 1, "max_tokens": 200}
    figures, scores, out = scored(tmp_path, parts, library=True, tries=2, agent=agent)
    assert figures["agent_th"] == figures["calls_th"] == 0.5
    assert figures["agent_th_sampled"] == 0.5 and figures["agentpass2_th"] == 0.75
    assert seen == [(48, 2, 300, 1, 1), (48, 2, 300, 2, 1)]
    assert len((out / "episodes.jsonl").read_text().splitlines()) == 12
    titles = {column["key"]: column["title"] for column in scores["columns"]}
    assert titles["agentpass2_th"] == "Thai pass@2, library T=1"
    assert titles["agent_th"] == "Thai answers, library"


def test_a_random_model_is_asked_for_real(tmp_path, parts):
    """Everything together on random weights: figures in their ranges, the same when asked again."""
    settings = {
        "also": ["contains", "sampled", "foreign"],
        "tries": 2,
        "max_tokens": 5,
        "agent": {"max_turns": 1, "max_tokens": 20, "top": 1},
    }
    figures, scores, _ = scored(tmp_path, parts, library=True, **settings)
    again, _, _ = scored(tmp_path, parts, library=True, **settings)
    assert figures == again and all(0 <= value <= 1 for value in figures.values())
    assert {"agent_th", "calls_th", "agentpass2_th", "pass2_th", "mixed_th"} <= figures.keys()
    assert figures["foreign_th"] > 0
    keys = {column["key"] for column in scores["columns"]}
    assert keys == figures.keys() == scores["figures"].keys()


def test_an_embedder_is_handed_to_the_library_and_of_use_there_alone(tmp_path, parts, monkeypatch):
    from endonym.rollouts import library, vectors

    class Embedder:
        def __init__(self, folder, *, cache, device):
            self.said = (folder.name, cache.name, device)

    seen = []

    class Library(library.Library):
        def __init__(self, *given, embedder, **rest):
            seen.append(embedder.said)
            super().__init__(*given, **rest)

    monkeypatch.setattr(vectors, "Embedder", Embedder)
    monkeypatch.setattr(library, "Library", Library)
    monkeypatch.setattr(agentic, "agentic_answers", lambda *_, **__: [])
    canned(monkeypatch)
    given = parts | {"embedder": parts["model"]}
    scored(tmp_path, given, library=True)
    assert seen == [("model", "vectors", "cpu")]
    with pytest.raises(RecipeError, match="without anything to search"):
        scored(tmp_path, given)


def test_a_library_of_two_languages_is_refused(tmp_path, parts):
    shelf = tmp_path / "sections" / "sections.parquet"
    write_sections(shelf, bylaws.sections("th", ["text"]) + bylaws.sections("ko", ["text"]))
    with pytest.raises(DataError, match="one language"):
        scored(tmp_path, parts, library=True)


@pytest.mark.parametrize("settings", [{"tries": 2}, {"also": ["foreign"]}, {"also": ["sampled"]}])
def test_sampled_figures_need_a_temperature(settings):
    with pytest.raises(RecipeError, match="sampled_at above 0"):
        EvaluateConfig.read({"sampled_at": 0.0, **settings})
    assert EvaluateConfig.read({"sampled_at": 0.0, "also": ["contains"]}).also == ["contains"]


def test_a_label_may_be_anything():
    """Also a word with the sign that parts the key, and a short one that is no language."""
    titles = {
        "bpb_th": "Thai text",
        "bpb_web": "web text",
        "bpb_my_text": "my_text text",
        "answers_ko": "Korean answers",
        "language_th_sampled": "Thai only T=0.7",
        "language_my_text": "my_text only",
        "needle_min": "Needles, worst cell",
        "needle_512": "Needles at 512",
        "pass16_text": "text pass@16 T=0.7",
    }
    assert {key: _column(key, 0.7).title for key in titles} == titles
