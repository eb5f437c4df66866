"""A tokenizer as the Hugging Face folder that everybody's tools read, and what training needs of it.

Texts and conversations go in, ids come out; the ids are those that AutoTokenizer gives. Two things
are stricter here than in a plain encode of a rendered chat:

- Content is never control. A user who types "<|im_end|>" has typed ten characters; the turn does
  not end. Before rendering, such strings are broken by a Unicode noncharacter that the content does
  not hold; after the template's own control tokens are found it is taken out again.
- A prompt is an exact prefix. The rendered chat is cut where an assistant's words begin and both
  sides are encoded apart, because there a generation begins too: prompt ids + completion ids in
  training are what sampling sees, even where the completion begins with a newline.

Which tokens are supervised follows from rendering the conversation up to each assistant's turn, without
it and with it (no `{% generation %}` marks needed): from the end of the generation prompt to the turn's
stop token, inclusive. Where a template changes earlier turns (drops their thoughts), a conversation is
several training rows, so that every turn is learnt as it will be sampled (turns.py).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.tokenizer import chat, files
from endonym.tokenizer.backend import read_backend, regex_limit
from endonym.tokenizer.control import Control
from endonym.tokenizer.messages import PLACEHOLDERS, broken, checked, unweighted, weights
from endonym.tokenizer.render import render_parts
from endonym.tokenizer.turns import starts, training_texts

DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Ends of documents by family: GPT-2 and Qwen, Llama 3, Llama 2 and Mistral, Gemma."""

Messages = Sequence[dict[str, Any]]


class Tokenizer:
    """A tokenizers.Tokenizer with its named tokens and its chat template.

    backend:  the Rust tokenizer; its ids are the ids
    named:    {"eos_token": "<|endoftext|>", ...}
    template: the Jinja chat template, or None for a base model that has none
    """

    def __init__(self, backend: Backend, named: dict[str, str], template: str | None = None):
        self.backend, self.named, self.template = backend, dict(named), template

    # --- folder ---------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A tokenizer out of any folder with a tokenizer.json (no code of the folder is run)."""
        folder = Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise DataError(
                "there is no tokenizer in this folder",
                where=folder,
                wanted="a file tokenizer.json",
                got=", ".join(sorted(p.name for p in folder.glob("*"))[:8]) or "no files",
                do="give a Hugging Face folder, or convert the tokenizer first",
            )
        backend = read_backend(file)
        config = files.read_config(folder)
        named = files.named_tokens(config, folder)
        return cls(backend, named, files.read_template(folder, config))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        files.write(folder, self.named, self.template)

    @cached_property
    def identity(self) -> str:
        """sha256 of all that decides ids: two tokenizers with one identity encode alike."""
        state = json.dumps([self.backend.to_str(), self.named, self.template], sort_keys=True)
        return hashlib.sha256(state.encode()).hexdigest()

    # --- tokens with names ----------------------------------------------------------------------

    @cached_property
    def vocab_size(self) -> int:
        """Rows the model's embedding needs: the highest id plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def special(self, text: str) -> int:
        """The id of a token by its exact string."""
        number = self.backend.token_to_id(text)
        if number is None:
            known = [token.content for token in self._added]
            raise DataError(f"the tokenizer has no token {text!r}", do=nearest(text, known))
        return number

    @cached_property
    def eos_id(self) -> int:
        """The token that ends a document.

        It is the folder's eos_token, except where that ends a turn only (Qwen and Llama instruct
        models name <|im_end|> or <|eot_id|> there) and the vocabulary also holds a document end.
        """
        named = self.named.get("eos_token")
        known = {token.content for token in self._added}
        ends = [end for end in DOCUMENT_ENDS if end in known]
        if named is not None and (named != self._turn_end or not ends):
            return self.special(named)
        if ends:
            return self.special(ends[0])
        raise DataError(
            "the tokenizer names no token that ends a document",
            wanted=f"eos_token in tokenizer_config.json, or one of {', '.join(DOCUMENT_ENDS)}",
        )

    @cached_property
    def bos_id(self) -> int | None:
        """The token that the tokenizer itself puts before a text (Llama: <s>), or None."""
        ids = self.backend.encode("a", add_special_tokens=True).ids
        bare = self.backend.encode("a", add_special_tokens=False).ids
        leads = len(ids) > len(bare) and ids[0] != bare[0]
        return ids[0] if leads else None

    @cached_property
    def turn_end_id(self) -> int:
        """The token that ends an assistant's turn, found in the template's own rendering."""
        if self.template is None:
            raise self._no_template("ends a turn")
        if self._turn_end is None:
            raise DataError(
                "the chat template ends a turn with no token of the vocabulary",
                do="add the token that it writes there, or use chat.with_chat(tokenizer)",
            )
        return self.special(self._turn_end)

    @cached_property
    def stop_ids(self) -> set[int]:
        """Where a generation stops: the document's end and, with a template, the turn's end."""
        return {self.eos_id} | ({self.turn_end_id} if self._turn_end is not None else set())

    # --- plain text -----------------------------------------------------------------------------

    def encode(self, text: str, *, literal: bool = False) -> list[int]:
        """Ids of a text, nothing added. `literal`: control strings in it are ordinary characters."""
        backend = self.control.blind[0] if literal else self.backend
        with regex_limit():
            return backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], *, literal: bool = False) -> list[list[int]]:
        """encode() of many texts, in parallel."""
        backend = self.control.blind[0] if literal else self.backend
        with regex_limit():
            found = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens are dropped, bytes that are no UTF-8 become U+FFFD."""
        control = self._control_ids
        plain = [int(number) for number in ids if int(number) not in control]
        return self.backend.decode(plain, skip_special_tokens=True)

    # --- conversations --------------------------------------------------------------------------

    def render(
        self,
        messages: Messages,
        add_generation_prompt: bool = False,
        tools: list[dict] | None = None,
        **variables: Any,
    ) -> str:
        """The conversation as the chat template writes it; transformers' apply_chat_template agrees.

        variables: what else the template reads (enable_thinking, keep_thinking; see chat.CHATML)
        """
        messages = unweighted(checked(messages, self._has_placeholder))
        parts = [(len(messages), add_generation_prompt)]
        return self._rendered(messages, parts, tools, variables)[0]

    def training_rows(
        self, messages: Messages, tools: list[dict] | None = None, **variables: Any
    ) -> list[tuple[list[int], list[bool]]]:
        """(ids, supervised) of each row that a conversation is trained on: weighted_rows(), where
        only whether a token is learnt is asked."""
        rows = self.weighted_rows(messages, tools, **variables)
        return [(ids, [weight > 0 for weight in learnt]) for ids, learnt in rows]

    def weighted_rows(
        self, messages: Messages, tools: list[dict] | None = None, **variables: Any
    ) -> list[tuple[list[int], list[float]]]:
        """(ids, weights) of each row that a conversation is trained on. The assistant's tokens, turn
        end included, weigh what their message's "weight" says (1 where it says nothing, 0: read and
        not learnt), all others 0. A row with nothing to learn is left out.

        Each assistant turn is supervised once, after exactly the ids that encode_prompt gives for the
        messages before it. One row where the template leaves earlier turns as they were; several
        where it drops their thoughts (turns.training_texts). `variables` as in render().
        """
        plain, tools, mark = self._unmistakable(messages, tools)
        rows = training_texts(
            lambda parts: self._rendered(plain, parts, tools, variables),
            [message["role"] for message in plain],
            self._turn_over,
            self.template == chat.CHATML and chat.drops_nothing(plain, variables),
        )
        worth = weights(messages)
        found = []
        for row in rows:
            learnt = {begin: worth[number] for begin, number in row.learnt.items()}
            if any(learnt.values()):
                found.append(self._encode_row(row.text, row.starts, learnt, mark))
        if not found:
            raise DataError(
                "a conversation has no token to learn from",
                wanted="an assistant turn with a weight above 0",
                got=f"weights {worth}",
            )
        return found

    def encode_chat(
        self, messages: Messages, tools: list[dict] | None = None, **variables: Any
    ) -> tuple[list[int], list[bool]]:
        """The one training row of a conversation; DataError where it makes several."""
        rows = self.training_rows(messages, tools, **variables)
        if len(rows) > 1:
            raise DataError(
                f"the chat template makes {len(rows)} training rows of a conversation",
                wanted="one: no turn is changed by those that follow",
                do="use training_rows, or keep_thinking=True with a template that knows it",
            )
        return rows[0]

    def encode_prompt(
        self, messages: Messages, tools: list[dict] | None = None, **variables: Any
    ) -> list[int]:
        """Ids up to and including the generation prompt: an exact prefix of the training row's."""
        messages, tools, mark = self._unmistakable(messages, tools)
        turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        parts = [(len(messages), True), *((n, True) for n in turns)]
        text, *prompts = self._rendered(messages, parts, tools, variables)
        return self._encode_row(text, starts(text, prompts), {}, mark)[0]

    def encode_whole(
        self, messages: Messages, tools: list[dict] | None = None, **variables: Any
    ) -> list[int]:
        """Ids of the whole rendered conversation in one piece, as a reward model reads it: without a
        border where a generation would begin."""
        messages, tools, mark = self._unmistakable(messages, tools)
        (text,) = self._rendered(messages, [(len(messages), False)], tools, variables)
        return self._encode_row(text, [], {}, mark)[0]

    def encode_answers(
        self, messages: Messages, said: int, tools: list[dict] | None = None, **variables: Any
    ) -> list[int]:
        """Ids that follow the assistant's turn messages[said - 1]: the messages after it as the template
        renders them there, up to and including the next generation prompt.

        The turn itself need not be given as it was drawn: it is not encoded, only its end is looked for,
        by counting turn ends. So the template may change what stands before (drop thoughts, write a call's
        JSON otherwise).
        """
        plain, tools, mark = self._unmistakable(messages, tools)
        before, whole = self._rendered(plain, [(said, False), (len(plain), True)], tools, variables)
        ends, found = self._turn_ends(before), self._turn_ends(whole)
        after = before[ends[-1] :] if ends else before
        # the turn's own end, and that of a conversation that is over
        for token in map(self.backend.id_to_token, self.stop_ids):
            after = after.replace(token, "")
        if after.strip() or len(found) < len(ends):
            raise DataError(
                "the chat template does not end an assistant's turn with calls at a stop token",
                got=repr(before[-60:]),
                do="use a template that does, or chat.with_chat(tokenizer)",
            )
        # From the stop token on, so that the tokenizer knows that it is in the middle of a text
        return self._encode_row(whole[found[len(ends) - 1] :], [], {}, mark)[0][1:]

    def _unmistakable(
        self, messages: Messages, tools: list[dict] | None
    ) -> tuple[list[dict[str, Any]], list[dict] | None, str]:
        messages = unweighted(checked(messages, self._has_placeholder))
        return broken(messages, tools, self.control.pattern)

    def _rendered(
        self,
        messages: list[dict[str, Any]],
        parts: list[tuple[int, bool]],
        tools: list[dict] | None,
        variables: dict[str, Any],
    ) -> list[str]:
        if self.template is None:
            raise self._no_template("renders a conversation")
        return render_parts(
            self.template,
            messages,
            parts,
            tools=tools,
            variables=self.named | variables,
            trusted=self.template == chat.CHATML,
        )

    def _has_placeholder(self, kind: str) -> bool:
        """Whether the template's placeholder for a kind of part is a control token; a template that
        writes another than ours is left to itself."""
        token = PLACEHOLDERS[kind]
        return token in self.control.ids or token not in (self.template or "")

    def _turn_over(self, text: str, begin: int) -> int | None:
        """Where the turn that begins at `begin` is over, its stop token included."""
        found = self.control.found(text, begin)
        return next((end for _, end, number in found if number in self.stop_ids), None)

    def _turn_ends(self, text: str) -> list[int]:
        """Where the tokens that end a turn begin in a rendered text."""
        found = self.control.found(text)
        return [begin for begin, _, number in found if number == self.turn_end_id]

    def _encode_row(
        self, text: str, borders: list[int], learnt: dict[int, float], mark: str
    ) -> tuple[list[int], list[float]]:
        return self.control.encode(text, borders, learnt, mark, self.stop_ids)

    # --- what is derived once -------------------------------------------------------------------

    @cached_property
    def _added(self) -> list[AddedToken]:
        return list(self.backend.get_added_tokens_decoder().values())

    @cached_property
    def _turn_end(self) -> str | None:
        if self.template is None:
            return None
        if self.template == chat.CHATML:  # known without the renderer and its second of imports
            return chat.TURN_END if self.backend.token_to_id(chat.TURN_END) is not None else None
        return chat.turn_end(self.render, [token.content for token in self._added])

    @cached_property
    def control(self) -> Control:
        """Tokens that only a template or this class may write: special ones and the named ones."""
        return Control(self.backend, {*self.named.values(), self._turn_end, *DOCUMENT_ENDS})

    @cached_property
    def _control_ids(self) -> set[int]:
        return set(self.control.ids.values())

    def _no_template(self, wanted: str) -> DataError:
        return DataError(
            f"the tokenizer has no chat template, so nothing {wanted}",
            wanted="chat_template.jinja in the tokenizer's folder",
            do="add one: endonym.tokenizer.chat.with_chat(tokenizer)",
        )
