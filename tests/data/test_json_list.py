"""JSON lists read element by element are the lists that json reads whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.data.json_list import elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def pieces(raw, size):
    return (raw[n : n + size] for n in range(0, len(raw), size))


@given(st.lists(VALUES, max_size=6), st.integers(1, 40), st.sampled_from([None, 2]), st.booleans())
def test_every_list_comes_back_however_it_is_cut(values, size, indent, ascii):
    raw = json.dumps(values, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    if "\\ud" not in json.dumps(values):  # a lone surrogate is no UTF-8
        assert list(elements(pieces(raw, size), 1 << 20)) == values
        assert list(elements(pieces(b"\xef\xbb\xbf \n" + raw + b"\n", size), 1 << 20)) == values


@given(st.lists(VALUES, min_size=1, max_size=6), st.integers(1, 40), st.data())
def test_what_stands_before_a_break_is_given_and_then_the_break(values, size, data):
    raw = json.dumps(values).encode()
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    found = []
    with pytest.raises(ValueError):
        for value in elements(pieces(cut, size), 1 << 20):
            found.append(value)
    assert found == values[: len(found)]


@pytest.mark.parametrize(
    ("text", "count", "reason"),
    [
        ("{}", 0, "no list"),
        ("[1 2]", 1, "a comma is missing at '2'"),
        ("[1, nope, 3]", 1, "Expecting value"),
        ('[{"a": 1}, {"a" 2}, {"b": 3}]', 1, "Expecting ':'"),
        ("[1] []", 1, "something stands after"),
        ("[1,", 1, "Expecting value"),
        ("[1", 0, "ends early"),
        ("[1, 1e", 1, "a comma is missing at 'e'"),
        ("[1, 2x3, 4, 5, 6, 7, 8, 9]", 1, "a comma is missing at 'x'"),
        ('["a" "b"]', 1, "a comma is missing"),
        ("[1 ", 1, "ends early"),
        ('["\xff"]', 0, "invalid start byte"),
    ],
)
def test_breaks_are_named(text, count, reason):
    found = []
    with pytest.raises(ValueError, match=reason.replace("[", r"\[")):
        for value in elements([text.encode("latin-1")], 1 << 20):
            found.append(value)
    assert len(found) == count


def test_no_more_than_an_element_is_held():
    read = 0

    def chunks():
        nonlocal read
        yield b"["
        while True:
            read += 1
            yield b'"x",' * 100

    rows = elements(chunks(), 1 << 10)
    for _ in range(1000):
        next(rows)
    assert read < 40
    with pytest.raises(ValueError, match="more than"):
        list(elements(iter([b'["', *[b"x" * 1000] * 9999]), 1 << 10))
