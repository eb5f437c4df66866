"""The text of an answer while it is drawn, and where a stop string ends it.

A character may be several tokens (one Thai letter is three bytes) and a token several characters, so a
stop string is looked for in the text, not among the tokens: it may begin and end inside of tokens.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
"""Ids to text, control tokens left out; bytes that are no UTF-8 become U+FFFD (Tokenizer.decode)."""

_HALF = "\ufffd"


class Text:
    """Tokens in, text out.

    text:  what the tokens say so far, whole characters only; cut before a stop string that was found
    ended: a stop string was found
    ready: so many characters of `text` will stay, whatever comes: behind them stands what may become
           a stop string
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()):
        self.decode, self.stops = decode, stops
        self.text, self.ended = "", False
        self._whole = 0  # characters of text whose tokens need not be looked at again
        # Tokens not yet whole, and before them the newest that are: what a token says depends on
        # whether one stands before it (a leading space is dropped at the start of a text).
        self._near: list[int] = []
        self._known = ""  # what those before say
        self._before = 0  # how many they are

    def push(self, token: int) -> None:
        """One more token."""
        self._near.append(token)
        said = self.decode(self._near)[len(self._known) :]
        searched = self._whole
        self.text = self.text[: self._whole] + said.rstrip(_HALF)
        if said and not said.endswith(_HALF):
            self._whole = len(self.text)
            self._near = self._near[self._before :]
            self._before, self._known = len(self._near), self.decode(self._near)
        found = [self.text.find(stop, max(0, searched - len(stop) + 1)) for stop in self.stops]
        found = [start for start in found if start >= 0]
        if found:
            self.text, self.ended = self.text[: min(found)], True

    def finish(self) -> None:
        """No more tokens: bytes that never became a character are U+FFFD."""
        if not self.ended:
            self.text = self.text[: self._whole] + self.decode(self._near)[len(self._known) :]

    @property
    def ready(self) -> int:
        if self.ended:
            return len(self.text)
        held = (
            size
            for stop in self.stops
            for size in range(min(len(stop) - 1, len(self.text)), 0, -1)
            if self.text.endswith(stop[:size])
        )
        return len(self.text) - max(held, default=0)
