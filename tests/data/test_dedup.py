import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endonym.core.errors import RecipeError
from endonym.data.decontaminate import normalised
from endonym.data.dedup import (
    HASHES,
    SAMPLE,
    Deduplicator,
    _sample,
    _Units,
    bands,
    candidates,
    jaccard,
)
from endonym.data.document import Conversation, Document, Preference

LETTERS = {
    "en": "etaoinshrdlu ",
    "th": "กขคงจชซดตถทนบปพมยรลวสหอาิีุู่้ ",
    "ko": "가나다라마바사아자차카타파하고노도로모보소오 ",
}


def text(language, seed, length=400):
    return "".join(random.Random(f"{language} {seed}").choices(LETTERS[language], k=length))


def kept(rows, **settings):
    """Numbers of the rows that stay, and the counts."""
    dedup = Deduplicator(**settings)
    documents = [Document(str(n), row) for n, row in enumerate(rows)]
    return [int(row.id) for row in dedup(documents)], dict(dedup.counts)


def shingles(row, shingle="auto"):
    units = _Units(shingle)
    return units.shingles(*units.kinds_of([row]), 1)[0].tolist()


# --- exact ------------------------------------------------------------------------------------------


def test_layout_punctuation_and_case_make_no_difference():
    rows = ["The rain, in Spain.", "the RAIN\nin spain", "The rain in Spain 2", "ฝน ตก", "ฝนตก"]
    assert kept(rows) == ([0, 2, 3], {"kept": 3, "exact": 2})


@settings(max_examples=60)
@given(st.lists(st.text("aA éÉ1.\u0301กา่가 \n+\0", max_size=6), max_size=30))
def test_exact_is_equality_of_the_normalised_text(rows):
    seen, expected = set(), []
    for number, row in enumerate(rows):
        key = (True, normalised(row)) if normalised(row) else (False, row)
        if key not in seen:
            expected.append(number)
        seen.add(key)
    assert kept(rows)[0] == expected


def test_signs_without_letters_are_compared_as_they_stand():
    assert kept(["...", "!!!", "...", ""])[0] == [0, 1, 3]


def test_exact_can_be_left_out():
    assert kept(["a b", "a b"], exact=False)[0] == [0, 1]


def test_all_turns_and_tool_calls_of_a_conversation_count():
    def row(number, answer, arguments="{}"):
        call = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
        return Conversation(
            number,
            [
                {"role": "user", "content": "hello there"},
                {"role": "assistant", "content": None, "tool_calls": call},
                {"role": "assistant", "content": answer},
            ],
        )

    rows = [row("0", "yes"), row("1", "no"), row("2", "Yes!"), row("3", "yes", '{"a": 1}')]
    assert [each.id for each in Deduplicator()(rows)] == ["0", "1", "3"]


def test_rows_of_two_answers_are_compared_whole():
    def row(number, rejected):
        said = [[{"role": "user", "content": "q"}], [{"role": "assistant", "content": "good"}]]
        return Preference(number, *said, [{"role": "assistant", "content": rejected}])

    rows = [row("0", "bad"), row("1", "worse"), row("2", "bad")]
    assert [each.id for each in Deduplicator()(rows)] == ["0", "1"]


def test_the_memory_goes_on_from_call_to_call():
    dedup = Deduplicator(similarity=0.7)
    first = [Document("a", text("th", 1)), Document("b", text("th", 2))]
    assert len(list(dedup(first))) == 2
    again = [
        Document("c", text("th", 2)),
        Document("d", text("th", 2) + "กก"),
        Document("e", "x y"),
    ]
    assert [row.id for row in dedup(again)] == ["e"]
    assert dedup.counts == {"kept": 3, "exact": 1, "near": 1}


# --- near -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LETTERS)
def test_planted_near_duplicates_are_found_and_others_are_not(language):
    rng, rows, copies = random.Random(3), [], set()
    for number in range(60):
        original = text(language, number)
        rows.append(original)
        if number % 2:
            at = rng.randrange(len(original) - 4)
            copies.add(len(rows))
            rows.append(original[:at] + "กa가"[number % 3] + original[at + 4 :])
    found, counts = kept(rows, similarity=0.7)
    assert set(range(len(rows))) - set(found) == copies
    assert counts == {"kept": 60, "near": 30}
    assert found == sorted(found)


def test_near_means_the_similarity_that_was_asked():
    # 100 different characters are 96 shingles; the first 90 of them and 10 others keep 86 of these
    # and add 10: J = 86 / 106 = 0.81
    letters = [chr(0xAC00 + 7 * number) for number in range(120)]
    rows = ["".join(letters[:100]), "".join(letters[:90] + letters[110:120])]
    assert kept(rows, similarity=0.80)[0] == [0]
    assert kept(rows, similarity=0.82)[0] == [0, 1]


def test_a_chain_of_changes_ends_where_its_ends_differ():
    letters = [chr(0xAC00 + 7 * number) for number in range(200)]
    rows = ["".join(letters[begin : begin + 100]) for begin in (0, 12, 24)]
    # neighbours share 84 of 108 shingles, the ends 72 of 120: the last resembles none that was kept
    assert kept(rows, similarity=0.7)[0] == [0, 2]


def test_candidates_that_are_not_similar_enough_are_kept():
    # at 0.5 the index proposes two rows of J = 0.4 with a probability of 94 %
    assert candidates(0.4, *bands(0.5)) > 0.9
    letters = [chr(0xAC00 + 7 * number) for number in range(2000)]
    rows = []
    for number in range(10):
        part = letters[number * 200 : number * 200 + 164]
        rows += ["".join(part[:104]), "".join(part[43:147])]  # 57 of 143 shingles in common
    assert len(kept(rows, similarity=0.5)[0]) == len(rows)


def test_another_seed_finds_the_same_in_other_bands():
    rows = [text("th", number // 2) + "ก" * (number % 2) for number in range(20)]
    assert kept(rows, similarity=0.7, seed=1) == kept(rows, similarity=0.7, seed=2)


def test_the_result_is_the_same_in_another_process():
    code = (
        "from endonym.data.dedup import Deduplicator\n"
        "d = Deduplicator(similarity=0.5)\n"
        "rows = ['a b c d e f g', 'a b c d e f h', 'x y z', 'ภาษาไทยง่าย', 'ภาษาไทยง่ายๆ']\n"
        "print(d.outcomes(rows))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {"['kept', 'near', 'kept', 'kept', 'near']\n"}


def test_rows_come_as_they_are_read():
    read = 0

    def rows():
        nonlocal read
        for number in range(10_000):
            read += 1
            yield Document(str(number), text("en", number))

    next(Deduplicator(similarity=0.8)(rows()))
    assert read < 1000


@pytest.mark.parametrize("similarity", [0, -0.5, 1.1])
def test_a_similarity_out_of_range_is_refused(similarity):
    with pytest.raises(RecipeError, match="out of range"):
        Deduplicator(similarity=similarity)


# --- shingles ---------------------------------------------------------------------------------------


def test_shingles_suit_the_script():
    assert len(shingles("one two three four")) == 3  # pairs of words
    assert len(shingles("กขคงจฉ")) == 2  # five characters
    assert len(shingles("나는 학교에")) == 1  # five syllables, the space between eojeol passed over
    assert len(shingles("나는 학교에", "words")) == 1
    assert len(shingles("one two three four", "characters")) == 11
    assert len(shingles("กขคงจฉ ok go")) == 5  # กขคงจ ขคงจฉ คงจฉ+ok งจฉ+ok+go, and ok go
    assert shingles("กขคงจ") == shingles("ก ข-ค ง. จ")


@pytest.mark.parametrize(("row", "count"), [("", 0), ("...", 0), ("word", 1), ("กข", 1)])
def test_a_row_of_fewer_units_than_a_shingle(row, count):
    assert len(shingles(row)) == count


def test_shingles_do_not_cross_rows():
    units = _Units("auto")
    rows = ["one two", "three", "", "กขคงจ ฉ", "four five six"]
    together = units.shingles(*units.kinds_of(rows), len(rows))
    assert [found.tolist() for found in together] == [shingles(row) for row in rows]


def test_order_and_letters_of_words_count():
    assert shingles("ab ba") != shingles("ba ab")
    assert shingles("ab cd") != shingles("abc d")
    assert shingles("ab cd") != shingles("ba cd")


@settings(max_examples=30)
@given(st.integers(1, 6000), st.integers(1, 6000), st.floats(0, 1), st.integers(0, 9))
def test_a_samples_similarity_is_near_the_exact_one(first, second, share, seed):
    hashes = np.random.default_rng(seed).integers(0, 1 << 64, first + second, dtype=np.uint64)
    both = int(share * min(first, second))
    one, other = hashes[:first], hashes[first - both : first - both + second]
    exact = len(np.intersect1d(one, other)) / len(np.union1d(one, other))
    found = jaccard(_sample(one), _sample(other))
    if max(first, second) <= SAMPLE:
        assert found == exact
    # five standard deviations for the least sample that two rows of such sizes share
    least = max(4.0, SAMPLE / 2 * min(1, min(first, second) / max(first, second)))
    assert abs(found - exact) <= 5 * 0.5 / least**0.5
    assert len(_sample(one)[1]) <= 1.5 * SAMPLE


def test_samples_of_different_rates_are_compared_at_the_lower():
    # 500 of 1000 hashes: the smaller set is kept whole, of the larger about half
    found = []
    for seed in range(40):
        hashes = np.random.default_rng(seed).integers(0, 1 << 64, 1000, dtype=np.uint64)
        one, other = _sample(hashes[:500]), _sample(hashes)
        assert (one[0], other[0]) == (0, 1)
        found.append(jaccard(one, other))
        assert found[-1] == jaccard(other, one)
    assert abs(np.mean(found) - 0.5) < 0.02


def test_bands_keep_what_their_equation_promises():
    assert bands(0.7) == (25, 5)
    for similarity in (0.2, 0.3, 0.5, 0.6, 0.8, 0.9, 0.99, 1.0):
        b, r = bands(similarity)
        assert b * r <= HASHES
        assert candidates(similarity, b, r) >= 0.98
        if r < HASHES:
            assert candidates(similarity, HASHES // (r + 1), r + 1) < 0.98 or similarity == 1
