"""A conversation in the terminal: the reply appears as it is drawn, in whole characters.

    chat(folder, context, sampling)

On a terminal it prompts and edits lines; from a pipe it reads a line, answers it, and ends with the
input, which is also how it is tested. /reset forgets the conversation, /exit (or end of input)
leaves, Ctrl-C stops a reply and keeps what was said.
"""

import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.engine.generate import stream
from endonym.engine.sampler import Sampling
from endonym.model import hf
from endonym.model.checkpoint import CausalLM
from endonym.model.device import place
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.messages import split_thoughts

COMMANDS = "/reset forgets the conversation, /exit leaves"

# Letters that are drawn together with the one before though Unicode calls them letters: Thai and Lao am.
LEANING = "\u0e33\u0eb3"
JOINERS = "\u200d\ufe0f"


class Spoken:
    """Tokens in, text out as soon as it can be shown: nothing shown is ever taken back.

    Held back are bytes that are not yet a character (one Thai letter may be three tokens) and the
    last visible character, to which the next token may add a vowel or tone mark. A terminal that gets
    a mark by itself draws it over a dotted circle, or over nothing.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self._tokens, self._shown = tokenizer, [], 0

    def push(self, token: int) -> str:
        """What can be shown now, after one more token."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        whole = text.rstrip("\ufffd")
        return self._show(text, last_character(whole))

    def finish(self) -> str:
        """The rest; bytes that never became a character are shown as U+FFFD."""
        text = self._tokenizer.decode(self._tokens)
        return self._show(text, len(text))

    @property
    def text(self) -> str:
        return self._tokenizer.decode(self._tokens)

    def _show(self, text: str, end: int) -> str:
        new = text[self._shown : max(end, self._shown)]
        self._shown += len(new)
        return new


def last_character(text: str) -> int:
    """Where the last visible character of a text begins: a letter with all its marks.

    White space is whole by itself, so after it nothing is held back.
    """
    at = len(text)
    if at and text[-1].isspace():
        return at
    while at > 0:
        at -= 1
        joins = at > 0 and text[at - 1] == "\u200d"
        if not _leans(text[at]) and not joins:
            break
    return at


def _leans(character: str) -> bool:
    if character in LEANING or character in JOINERS:
        return True
    is_skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    is_jamo = "\u1160" <= character <= "\u11ff"  # Hangul vowels and finals written apart
    return is_skin_tone or is_jamo or unicodedata.category(character)[0] == "M"


class Conversation:
    """The messages so far, kept within the model's context by forgetting the oldest exchange."""

    def __init__(
        self, model: CausalLM, tokenizer: Tokenizer, sampling: Sampling, system: str | None
    ):
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self._system = [{"role": "system", "content": system}] if system else []
        self._turns: list[dict[str, Any]] = []

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [*self._system, *self._turns]

    def reset(self) -> None:
        self._turns = []

    def say(self, text: str, out: TextIO) -> str:
        """The reply to `text`, written to `out` while it is drawn, and kept. DataError if it cannot fit."""
        before = list(self._turns)
        self._turns.append({"role": "user", "content": text})
        try:
            prompt = self._prompt()
        except DataError:
            self._turns = before
            raise
        spoken = Spoken(self.tokenizer)
        try:
            for token in stream(self.model, prompt, self.sampling, self.tokenizer.stop_ids):
                _write(out, spoken.push(token))
        except KeyboardInterrupt:
            _write(out, spoken.finish() + " [stopped]")
        else:
            _write(out, spoken.finish())
        _write(out, "\n")
        self._turns.append({"role": "assistant", **split_thoughts(spoken.text)})
        return spoken.text

    def _prompt(self) -> list[int]:
        """Ids of the conversation that leave room for a reply; oldest exchanges are dropped for it."""
        size = getattr(self.model.config, "max_position_embeddings", None)
        while True:
            prompt = self.tokenizer.encode_prompt(self.messages)
            if size is None or len(prompt) + self.sampling.max_tokens <= size:
                return prompt
            if len(self._turns) > 1:
                self._turns = self._turns[2:]
            elif len(prompt) < size:
                return prompt  # less room than max_tokens, but some; generation stops at the window
            else:
                raise DataError(
                    "this message is longer than the model's context",
                    wanted=f"fewer than {size} tokens",
                    got=len(prompt),
                    do="say it in fewer words",
                )


def chat(
    model_folder: str | Path,
    context: Context,
    sampling: Sampling,
    system: str | None = None,
    *,
    source: TextIO | None = None,
    out: TextIO | None = None,
) -> int:
    """Talks until /exit or the end of input; the number of replies given.

    Replies go to `out` (stdout), one line after each message; notes and prompts to stderr.
    """
    source, out = source or sys.stdin, out or sys.stdout
    tokenizer = Tokenizer.load(model_folder)
    model = hf.load(model_folder, device=place(context))
    talk = Conversation(model, tokenizer, sampling, system)
    is_terminal = source is sys.stdin and source.isatty()
    if is_terminal:
        context.console.note(f"{Path(model_folder).name}: {COMMANDS}", style="dim")
    replies = 0
    for line in _typed() if is_terminal else source:
        text = line.strip()
        if text in ("/exit", "/quit"):
            break
        if text == "/reset":
            talk.reset()
            context.console.note("the conversation is forgotten", style="dim")
        elif text.startswith("/") and len(text.split()) == 1:
            context.console.note(f"no command {text}: {COMMANDS}", style="dim")
        elif text:
            try:
                talk.say(text, out)
                replies += 1
            except DataError as error:
                context.console.note(str(error), style="red")
    return replies


def _typed() -> Iterable[str]:
    """Lines from the terminal, editable, until end of input or Ctrl-C at the prompt."""
    import readline  # noqa: F401 (input() edits lines once it is imported)

    while True:
        try:
            yield input("› ")
        except (EOFError, KeyboardInterrupt):
            return


def _write(out: TextIO, text: str) -> None:
    if text:
        out.write(text)
        out.flush()
