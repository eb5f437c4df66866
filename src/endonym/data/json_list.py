"""The elements of a JSON list one after another: a file of them is never in memory whole."""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

NEAR_THE_END = 12
"""A literal cut off by the window's end ("-Infinit", "\\ud83") lies within so many characters of it."""

SPACE = " \t\r\n"


def elements(chunks: Iterable[bytes], longest: int) -> Iterator[Any]:
    """The elements of the list that `chunks` hold. ValueError, with what is wrong, at the first place
    where it is no JSON: what follows cannot be found again. longest: characters of one element."""
    window = _Window(chunks, longest)
    if window.sign() != "[":
        raise ValueError("no list")
    window.at += 1
    if window.sign() != "]":
        yield window.value()
        while (sign := window.sign()) == ",":
            window.at += 1
            yield window.value()
        if sign != "]":
            raise ValueError(
                "the list ends early" if not sign else f"a comma is missing at {sign!r}"
            )
    window.at += 1
    if window.sign():
        raise ValueError("something stands after the list")


class _Window:
    """A stretch of the text and a place in it; it reads on as it is asked to."""

    def __init__(self, chunks: Iterable[bytes], longest: int):
        self.text, self.at, self.is_whole, self.longest = "", 0, False, longest
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()

    def sign(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in SPACE:
                self.at += 1
            if self.at < len(self.text) or self.is_whole:
                return self.text[self.at : self.at + 1]
            self._read(1)

    def value(self) -> Any:
        """The JSON value that begins here."""
        self.sign()
        while True:
            rest = len(self.text) - self.at
            try:
                value, end = self._json.raw_decode(self.text, self.at)
                after = self.text[end : end + 1]
                is_over = after in (",", "]", *SPACE)
                if is_over or (after and (self.is_whole or len(self.text) - end > NEAR_THE_END)):
                    if not is_over and type(value) in (int, float):  # "1e" is no 1
                        raise ValueError(f"a comma is missing at {after!r}")
                    self.at = end
                    return value
                if self.is_whole:
                    raise ValueError("the list ends early")
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self.text) - NEAR_THE_END or "Unterminated" in error.msg
                if self.is_whole or not is_cut:
                    raise ValueError(error.msg) from None
            if rest > self.longest:
                raise ValueError(f"an element of more than {self.longest >> 20} Mi characters")
            self._read(
                rest
            )  # twice as much each time: a long element costs no square of its length

    def _read(self, least: int) -> None:
        """At least so many characters more, unless the file ends."""
        parts, size = [self.text[self.at :]], 0
        while size < max(least, 1) and not self.is_whole:
            chunk = next(self._chunks, None)
            self.is_whole = chunk is None
            parts.append(self._decoder.decode(chunk or b"", self.is_whole))
            size += len(parts[-1])
        self.text, self.at = "".join(parts), 0
