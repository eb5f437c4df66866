"""The invented statute book: groups that do not leak, answers that stand in the text, practised searches."""

import json
from collections import Counter
from itertools import islice

import pytest

from endonym.core.errors import DataError
from endonym.data.decontaminate import Decontaminator
from endonym.lang.normalize import compose
from endonym.lang.script import in_language
from endonym.rewards.contains import holds_string
from endonym.rewards.language import is_polite
from endonym.synth import bylaws, searches
from endonym.tasks.base import task_for
from endonym.tokenizer.calls import check_calls, parse_reply
from eval.tiny import tokenizer

BOOKS = ("th", "ko", "en")


@pytest.mark.parametrize("language", BOOKS)
def test_towns_differ_and_cannot_be_guessed(language):
    every = bylaws.bylaws(language)
    assert Counter(one.group for one in every) == bylaws.GROUPS
    assert len({one.town for one in every}) == len(every) == 24 * 24
    acts = Counter(one.act for one in every)
    assert len(acts) > 250 and acts.most_common(1)[0][1] < 9
    assert len({one.fine for one in every}) == bylaws.FINES
    words = bylaws.words_of(language)
    for names in (words.things, words.qualities, words.acts, words.places):
        assert len(set(names)) == len(names)
    # every act and place is used, and none is a part of another's end, which would be scored as it
    assert not any(a != b and a.endswith(b) for a in acts for b in acts)


def test_books_of_all_languages_say_the_same_and_seeds_differ():
    th, ko = bylaws.bylaws("th"), bylaws.bylaws("ko")
    assert [one.key for one in th] == [one.key for one in ko]
    assert [one.group for one in th] == [one.group for one in ko]
    places = {one.act: other.act for one, other in zip(th, ko)}
    assert len(places) == len(set(places.values()))
    again = {one.town: one for one in bylaws.bylaws("th", seed=1)}
    assert sum(again[one.town].act == one.act for one in th) < 12
    assert sum(again[one.town].group == one.group == "old" for one in th) < 30  # 11 expected


def test_the_book_is_the_reviewed_one():
    """A change here is another statute book: everything trained on this one is void."""
    first = bylaws.bylaws("en", ["never"])[0]
    assert (first.key, first.town, first.act, first.fine) == (
        *("0/15-23", "Brave Book"),
        *("it bans setting off firecrackers at the railway station", "a fine of 500 dollars"),
    )


@pytest.mark.parametrize("language", BOOKS)
def test_text_says_what_is_asked(language):
    known = {one.key: one for one in bylaws.bylaws(language, ["read"])}
    texts = {}
    for row in bylaws.documents(language, ["read"]):
        key = row.id.removeprefix(f"bylaws/{language}/").rpartition("/")[0]
        one = known[key]
        # the town first: what is asked for follows what it is asked by
        assert row.text.index(one.town) < row.text.index(one.act[1:]) < row.text.index(one.fine)
        assert row.text == compose(row.text) and in_language(row.text, language)
        texts.setdefault(key, set()).add(row.text)
    assert len(texts) == 24 and all(len(ways) >= 6 for ways in texts.values())
    for section in bylaws.sections(language, ["read"]):
        one = known[section.id.removeprefix(f"bylaws/{language}/")]
        assert section.text in texts[one.key] and one.town in section.book
        assert section.number == "1"


@pytest.mark.parametrize("language", BOOKS)
def test_test_questions_are_no_training_questions_and_gold_is_right(language):
    train, test = (bylaws.items(language, split, ["text"]) for split in ("train", "test"))
    asked = [item.messages[0]["content"] for item in train + test]
    assert len(set(asked)) == len(asked)
    assert Counter(item.task for item in test) == {"bylaws_act": 48, "bylaws_fine": 48}
    assert len({item.id for item in train + test}) == len(train + test)
    towns = {item.id.rsplit("/", 3)[0] for item in train[:24]}
    assert len(towns) == 24  # the first so many ask about all towns
    for item in train + test:
        task = task_for(item.kind)
        assert task.check(item, task.target(item)).score == 1.0
        others = {other.answer for other in test} - {item.answer}
        assert not any(task.check(item, other).score for other in others)
    # what is trained on does not hold what is tested, as decontamination sees it
    clean = Decontaminator({"exam": [item.messages[-1]["content"] for item in test]})
    groups = ["old", "asked", "text"]
    rows = [*bylaws.documents(language, groups), *bylaws.conversations(language, groups)]
    assert len(list(clean(iter(rows)))) == len(rows)


@pytest.mark.parametrize("language", BOOKS)
def test_a_share_of_answers_is_polite_and_still_right(language):
    talks = list(bylaws.conversations(language, ["old"]))
    items = bylaws.items(language, "train", ["old"])
    assert [talk.id for talk in talks] == [item.id for item in items] and len(items) == 640
    polite = 0
    for talk, item in zip(talks, items):
        said = talk.messages[-1]["content"]
        assert task_for(item.kind).check(item, said).score == 1.0
        assert holds_string(said, item.answer)
        polite += is_polite(said, language)
    if language == "en":
        assert polite == 0
    else:
        assert 0.23 < polite / len(talks) < 0.37  # 0.3, four standard deviations


def test_only_of_old_towns_questions_are_answered_in_the_text():
    rows = list(bylaws.documents("th", ["old", "read"]))
    answered = [row for row in rows if row.id.endswith("/answered")]
    assert len(rows) == 104 * 6 + 640 and len(answered) == 640
    items = bylaws.items("th", "train", ["old"])
    told = [f"{item.messages[0]['content']}\n{item.answer}" for item in items]
    assert [row.text for row in answered] == told
    for group in ("read", "asked", "text"):
        assert not any(row.id.endswith("/answered") for row in bylaws.documents("th", [group]))


def test_groups_share_nothing():
    groups = {group: {one.town for one in bylaws.bylaws("th", [group])} for group in bylaws.GROUPS}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))
    told = " ".join(row.text for row in bylaws.documents("th", ["old"]))
    for group in set(groups) - {"old"}:
        assert not any(f"เมือง{town}" in told for town in groups[group])
    with pytest.raises(DataError, match="no group of towns 'olds'"):
        bylaws.bylaws("th", ["olds"])


@pytest.mark.parametrize("language", BOOKS)
def test_searches_find_what_they_answer(language):
    talks = list(islice(searches.conversations(language, seed=3, top=2), 120))
    practised = {one.town for one in bylaws.bylaws(language, ["practice"], seed=3)}
    others = ["read", "text", "never", "asked"]
    untouched = [one.town for one in bylaws.bylaws(language, others, seed=3)]
    first = 0
    for talk in talks:
        user, call, tool, answer = talk.messages
        (query,) = call["tool_calls"][0]["function"]["arguments"]["query_list"]
        assert query in user["content"] and any(town in query for town in practised)
        found = json.loads(tool["content"])
        assert tool["tool_call_id"] == call["tool_calls"][0]["id"] and len(found) == 2
        said = answer["content"]
        endings = bylaws.words_of(language).polite
        bare = next((said.removesuffix(end) for end in endings if said.endswith(end)), said)
        texts = [one["text"].casefold() for one in found]
        assert any(bare.casefold() in text for text in texts)
        first += bare.casefold() in texts[0]
        assert not any(town in tool["content"] for town in untouched)
    assert first >= 110  # so often the right section is the first


def test_a_practised_town_has_another_bylaw_in_each_edition():
    count = bylaws.GROUPS["practice"]
    talks = list(islice(searches.conversations("th", seed=3), 2 * count))
    towns = [
        talk.messages[1]["tool_calls"][0]["function"]["arguments"]["query_list"][0]
        for talk in talks
    ]
    assert sorted(towns[:count]) == sorted(towns[count:]) and towns[:count] != towns[count:]
    assert len({talk.id for talk in talks}) == len(talks)
    first, second = (bylaws.bylaws("th", ["practice"], seed=3, edition=n) for n in (0, 1))
    assert sum(one.act == other.act for one, other in zip(first, second)) < 12
    told = bylaws.bylaws("th", ["never"], edition=1)
    assert told == bylaws.bylaws("th", ["never"])  # what is scored has one edition


def test_a_search_is_what_the_model_would_have_written():
    """Rendered, drawn and parsed, the call is the same; and the template knows the tools."""
    talk = next(searches.conversations("th"))
    words = tokenizer()
    check_calls(words, talk.tools)
    text = words.render(talk.messages[:2], tools=talk.tools)
    said = parse_reply(text.rpartition("<|im_start|>assistant\n")[2].removesuffix("<|im_end|>\n"))
    assert said["tool_calls"] == talk.messages[1]["tool_calls"]


def test_logs_are_the_episodes_as_text():
    logs = list(islice(searches.documents("en", top=2), 16))
    talks = {talk.id for talk in islice(searches.conversations("en", top=2), 500)}
    assert not talks & {log.id.removesuffix("/log") for log in logs}  # of other editions
    assert [log.text.startswith('{"type": "function"') for log in logs] == [True, *[False] * 7] * 2
    assert all('<tool_call>\n{"name": "search_law"' in log.text for log in logs)


def test_a_language_without_a_book_gets_the_english_one():
    assert bylaws.written_in("vi") == "en" and bylaws.written_in("ko") == "ko"
    item = bylaws.items("vi", "test", ["text"])[0]
    assert item.language == "en" and item.id.startswith("bylaws/vi/")
    assert {row.language for row in bylaws.documents("vi", ["old"])} == {"en"}
    assert "in English" in bylaws.split_statement("vi")
    assert next(searches.conversations("vi")).language == "en"
