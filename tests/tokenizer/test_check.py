import pytest

from endonym.core.errors import DataError
from endonym.tokenizer.check import check


def state(**changes):
    """a, b, c, ab, abc and the merges that make them, sound until changed."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    return {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"], ["ab", "c"]]} | changes,
        "added_tokens": [],
    }  # fmt: skip


def refused(broken, match, *said):
    with pytest.raises(DataError, match=match) as caught:
        check(broken, "file.json")
    for part in ("file.json", *said):
        assert part in str(caught.value)


def test_a_sound_one_passes_in_either_spelling_of_merges():
    check(state())
    check(state(merges=["a b", "ab c"]))
    check(state(type="WordLevel", merges=[]))
    check({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0]]}})


def test_ids():
    vocabulary = state()["model"]["vocab"]
    refused(state(vocab={}), "without a vocabulary")
    refused(state(vocab=vocabulary | {"x": 3}), "two tokens have one id", "id 3", "'ab' and 'x'")
    refused(state(vocab=vocabulary | {"x": 9}), "4 ids have no token", "0 to 9", "one is 5")
    refused(state(vocab=vocabulary | {"x": -1}), "no whole number", "'x'", "-1")
    refused(state(vocab=vocabulary | {"x": True}), "no whole number")
    twice = {"model": {"vocab": [["a", 0.0], ["b", 0.0], ["a", -1.0]]}}
    refused(twice, "two pieces are the same", "ids 0 and 2", "'a'")


def test_added_tokens():
    sound = state() | {"added_tokens": [{"content": "<s>", "id": 7}]}
    check(sound)  # ids between the model's and the added ones may be free
    refused(
        state() | {"added_tokens": [{"content": "<s>", "id": 2}]}, "have one id", "'c' and '<s>'"
    )
    refused(
        state() | {"added_tokens": [{"content": "c", "id": 5}]}, "has two ids", "2 in", "5 among"
    )
    hole = state(vocab={"a": 0, "b": 1, "ab": 3}, merges=[["a", "b"]])
    refused(hole, "1 ids have no token")
    check(hole | {"added_tokens": [{"content": "<s>", "id": 2}]})


def test_merges():
    refused(state(merges=["a b", "ab c x"]), "does not have two parts", "merge 1", "'ab c x'")
    refused(state(merges=[["a", "b"], ["ab", ""]]), "does not have two parts", "merge 1")
    refused(state(merges=[["a", "b"], ["ab", "x"]]), "a part that is no token", "merge 1", "'x'")
    refused(state(merges=[["a", "b"], ["b", "c"]]), "a result that is no token", "merge 1", "'bc'")
    doubled = [["a", "b"], ["ab", "c"], ["a", "b"]]
    refused(state(merges=doubled), "stands twice", "merges 0 and 2", "'a' + 'b'")


def test_merges_that_can_never_be_made():
    dead = state(merges=[["ab", "c"]])  # no merge makes "ab"
    refused(dead, "can never be made", "merge 0", "'ab' + 'c'")
    check(state(merges=[["ab", "c"]], ignore_merges=True))  # found as a whole word
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bc": 5}
    merges = [["b", "c"], ["a", "b"], ["ab", "c"]]  # "bc" takes the b before "ab" can
    refused(state(vocab=vocabulary, merges=merges), "can never be made", "merge 2")
    check(state(vocab=vocabulary, merges=[*merges, ["a", "bc"]]))  # another split leads there
    check(state(vocab=vocabulary, merges=merges[1:] + merges[:1]))


def test_a_later_part_may_have_an_earlier_rank():
    check(state(merges=[["ab", "c"], ["a", "b"]]))  # rank is not order of making
