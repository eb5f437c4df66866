"""Control tokens in a rendered text, and the plain stretches between them, as ids.

Content is never control: what stands between control tokens is encoded by a backend that is blind to
them, and the mark by which strings in the content were broken (messages.broken) is taken out again.
"""

import json
import re
from collections.abc import Iterator
from functools import cached_property

from tokenizers import Tokenizer as Backend

from endonym.tokenizer.backend import prefix_rule, regex_limit, without_prefix


class Control:
    """The control tokens of a backend: special ones, and those with these names.

    ids: by string; pattern: finds one in a text, the longest first
    """

    def __init__(self, backend: Backend, names: set[str | None]):
        self.backend = backend
        added = backend.get_added_tokens_decoder().values()
        self._tokens = {t.content: t for t in added if t.special or t.content in names}
        self.ids = {text: backend.token_to_id(text) for text in self._tokens}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._short: dict[tuple[str, bool], list[int]] = {}

    def found(self, text: str, begin: int = 0) -> Iterator[tuple[int, int, int]]:
        """(where it begins, where it is over, id) of each control token from `begin` on."""
        for match in self.pattern.finditer(text, begin):
            yield match.start(), match.end(), self.ids[match.group()]

    def encode(
        self, text: str, borders: list[int], learnt: dict[int, float], mark: str, stops: set[int]
    ) -> tuple[list[int], list[float]]:
        """Ids of a rendered text, encoded apart on both sides of each border, and their weights: that
        of each offset in `learnt` from there to the stop token after it, else 0."""
        ids: list[int] = []
        worth: list[float] = []
        waiting, weight = sorted(learnt), 0.0
        for offset, piece, control, fresh in self._stretches(text, borders):
            if waiting and offset >= waiting[0]:
                weight = learnt[waiting.pop(0)]
            new = [control] if control is not None else self._encode_stretch(piece, mark, fresh)
            ids += new
            worth += [weight] * len(new)
            if control in stops:
                weight = 0.0
        return ids, worth

    def _stretches(self, text: str, cuts: list[int]) -> Iterator[tuple[int, str, int | None, bool]]:
        """(offset, piece, id or None, fresh): control tokens and the plain stretches between them.

        fresh: whether a tokenizer with a dummy prefix puts it before this stretch. lstrip and rstrip
        of an added token take the white space beside it, as in the backend.
        """
        place, borders = 0, [*cuts, len(text)]

        def plain(begin: int, end: int) -> Iterator[tuple[int, str, int | None, bool]]:
            for border in borders:
                if begin < min(border, end):
                    fresh = begin not in cuts and (begin == 0 or self._prefix == "each")
                    yield begin, text[begin : min(border, end)], None, fresh
                    begin = min(border, end)

        for begin, after, number in self.found(text):
            token, end = self._tokens[text[begin:after]], begin
            if token.lstrip:
                end = place + len(text[place:end].rstrip())
            yield from plain(place, max(end, place))
            yield begin, token.content, number, False
            if token.rstrip:
                after += len(text[after:]) - len(text[after:].lstrip())
            place = after
        yield from plain(place, len(text))

    def _encode_stretch(self, piece: str, mark: str, fresh: bool) -> list[int]:
        """Ids of plain text; the template's short pieces recur and are remembered."""
        key = (piece, fresh)
        if (known := self._short.get(key)) is not None:
            return known
        backend = self.blind[0 if fresh else 1]
        with regex_limit():
            ids = backend.encode(piece.replace(mark, "") if mark else piece).ids
        if len(piece) <= 24 and len(self._short) < 4096 and not mark:
            self._short[key] = ids
        return ids

    @cached_property
    def _prefix(self) -> str:
        """The dummy-prefix rule: "none", "first" (text start only) or "each" (after control too)."""
        # the parts' own state: the whole tokenizer's would hold the vocabulary, most of a second of JSON
        parts = {name: getattr(self.backend, name) for name in ("normalizer", "pre_tokenizer")}
        return prefix_rule(
            {name: part and json.loads(part.__getstate__()) for name, part in parts.items()}
        )

    @cached_property
    def blind(self) -> tuple[Backend, Backend]:
        """Backends blind to control strings: at a fresh start, and in the middle of a text."""
        state = json.loads(self.backend.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["special"] or token["content"] in self._tokens
        state["post_processor"] = None
        fresh = Backend.from_str(json.dumps(state))
        fresh.encode_special_tokens = True
        if self._prefix == "none":
            return fresh, fresh
        for part in ("normalizer", "pre_tokenizer"):
            state[part] = without_prefix(state[part])
        inner = Backend.from_str(json.dumps(state))
        inner.encode_special_tokens = True
        return fresh, inner
