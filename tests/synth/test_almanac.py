"""The generator: splits, determinism, references that pass and broken replies that fail."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.lang.locale import facts, kind_of, skills
from endonym.lang.script import in_language
from endonym.synth import almanac
from endonym.tasks.base import task_for

LANGUAGES = ["th", "ko", "en", "vi", "lo"]


def texts_of(item) -> list[str]:
    return [item.messages[0]["content"], item.answer, item.context, *item.choices]


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_texts_are_clean_and_every_skill_appears(language):
    items = almanac.items(language, "train", amount=2000)
    items += almanac.items(language, "test", amount=2000)
    documents = list(almanac.documents(language, amount=500))
    documents += list(almanac.documents(language, amount=100, split="test"))
    texts = [text for item in items for text in texts_of(item)] + [d.text for d in documents]
    for text in texts:
        assert text == unicodedata.normalize("NFC", text)
        assert "None" not in text and "{" not in text and "duration-" not in text
    assert {item.task for item in items} == set(almanac.tasks_of(language))
    assert {item.kind for item in items} == {"answer", "choice", "constraint"}
    forms = {item.source.rpartition(": ")[2] for item in items}
    assert forms == set(almanac.FORMS)
    assert len({item.id for item in items}) == len(items)
    assert len({d.id for d in documents}) == len(documents)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_target_passes_and_a_broken_reply_fails(language):
    for item in almanac.items(language, "test", amount=1500):
        task = task_for(item.kind)
        target = task.target(item)
        assert task.check(item, target).score == 1.0, item
        assert task.check(item, "").score == 0.0
        broken = {"choice": f"({(int(item.answer) + 1) % 4 + 1})" if item.choices else ""}
        # Foreign letters before and after, on lines of their own and with a comma: no rule holds.
        reply = broken.get(item.kind) or "ж, ж.\nж. ж\nж"
        assert task.check(item, reply).score == 0.0, (item, reply)


@pytest.mark.parametrize("language", ["th", "ko", "en", "lo"])
def test_rule_facts_that_are_held_out_are_in_no_training_text(language):
    rules = [s for s in almanac.tasks_of(language) if kind_of(s) == "rule"]
    single = {"amount": 5000, "tasks": rules, "sentences": (1, 1)}
    written, asked = {}, {}
    for split in almanac.SPLITS:
        written[split] = {d.text for d in almanac.documents(language, split=split, **single)}
        made = almanac.items(language, split, amount=6000, tasks=rules)
        asked[split] = {(item.task, item.id.split("/")[4]) for item in made}
    assert not written["train"] & written["test"]
    assert asked["train"] and asked["test"]
    for skill in rules:
        held = {fact.key for fact in facts(language, skill) if fact.held_out}
        assert {key for task, key in asked["test"] if task == skill} <= held
        assert not {key for task, key in asked["train"] if task == skill} & held


def test_recall_facts_are_all_in_the_documents_and_asked_about_by_split():
    recall = [s for s in almanac.tasks_of("th") if kind_of(s) == "recall"]
    sentences = {s: almanac._sentences("th", s, "train", almanac.DEFAULT_RANGES) for s in recall}
    kept = {s: almanac._sentences("th", s, "test", almanac.DEFAULT_RANGES) for s in recall}
    for skill in recall:
        for fact in facts("th", skill):
            assert any(fact.key in text and fact.value in text for text in sentences[skill])
        assert not set(sentences[skill]) & set(kept[skill])
    train = almanac.items("th", "train", amount=10**6, tasks=recall)
    test = almanac.items("th", "test", amount=10**6, tasks=recall)
    assert not {i.messages[0]["content"] for i in train} & {i.messages[0]["content"] for i in test}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), amount=st.integers(1, 300))
def test_items_of_the_two_splits_never_share_a_prompt(seed, amount):
    train = almanac.items("ko", "train", seed=seed, amount=amount)
    test = almanac.items("ko", "test", seed=seed + 1, amount=amount)
    assert len(train) == amount
    assert not {i.messages[0]["content"] for i in train} & {i.messages[0]["content"] for i in test}


def test_switched_prompts_mix_scripts_and_want_the_language():
    for language, own in (("th", "Thai"), ("ko", "Korean")):
        switched = almanac.items(language, "test", amount=300, forms=["switch"])
        assert switched
        for item in switched:
            prompt = item.messages[0]["content"]
            assert item.language == language and in_language(item.answer, language)
            assert any("a" <= letter <= "z" for letter in prompt.lower())
        assert any(f"in {own}" in item.messages[0]["content"] for item in switched)
    years = almanac.items("th", "test", amount=50, tasks=["years"])
    assert years and all(i.kind != "answer" or i.language == "" for i in years)  # digits only


def test_choices_are_four_different_values_with_a_cloze_that_ends_before_them():
    for item in almanac.items("th", "test", amount=400, forms=["choice"]):
        assert len(set(item.choices)) == 4
        assert item.context and item.choices[int(item.answer)] not in item.context
        known = {f.value for f in facts("th", item.task)}
        assert set(item.choices) <= known


def test_tasks_forms_and_ranges_are_parameters():
    only = almanac.items("th", "train", amount=50, tasks=["numbers"], forms=["question"])
    assert {item.task for item in only} == {"numbers"} and {item.kind for item in only} == {
        "answer"
    }
    small = almanac.Ranges(numbers=(100, 140))
    few = almanac.items(
        "th", "test", amount=10**6, tasks=["numbers"], ranges=small, forms=["question"]
    )
    assert {100 <= int(i.id.split("/")[4]) <= 140 for i in few} == {True}
    assert almanac.items("th", "train", amount=5, tasks=["weekday_of"])  # by name only
    assert "weekday_of" in skills("th") and "weekday_of" not in almanac.tasks_of("th")
    with pytest.raises(DataError, match="no form 'questions'"):
        almanac.items("th", "train", amount=5, forms=["questions"])
    with pytest.raises(DataError, match="no split 'valid'"):
        almanac.items("th", "valid", amount=5)
    with pytest.raises(DataError, match="'lo' has no skill 'numbers'"):
        list(almanac.documents("lo", amount=1, tasks=["numbers"]))


def test_conversations_end_in_the_target_of_their_task():
    talks = list(almanac.conversations("th", amount=200, seed=3))
    items = almanac.items("th", "train", amount=200, seed=3)
    assert len(talks) == 200
    for talk, item in zip(talks, items):
        assert talk.messages[:-1] == item.messages and talk.task == item.task
        assert talk.messages[-1] == {
            "role": "assistant",
            "content": task_for(item.kind).target(item),
        }


def test_the_same_seed_gives_the_same_whatever_the_hash_seed():
    code = (
        "import hashlib\n"
        "from endonym.synth import almanac\n"
        "t = [d.text for d in almanac.documents('th', amount=200, seed=5)]\n"
        "t += [repr(i) for i in almanac.items('th', 'train', amount=200, seed=5)]\n"
        "print(hashlib.sha256(repr(t).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    one = [d.text for d in almanac.documents("th", amount=50, seed=5)]
    assert one == [d.text for d in almanac.documents("th", amount=50, seed=5)]
    assert one != [d.text for d in almanac.documents("th", amount=50, seed=6)]


def test_the_split_is_stated_with_its_figures():
    rule, recall, text = almanac.split_statement("th")
    held = sum(fact.held_out for fact in facts("th", "numbers"))
    assert f"numbers {held} of 1000" in rule
    assert "countries" in recall and "countries" not in rule and "held-out text" in text
