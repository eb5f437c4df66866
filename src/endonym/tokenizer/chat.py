"""Chat templates: ours (ChatML), the renderer (transformers' own), and where an assistant's turn lies."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from endonym.core.errors import DataError

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer

END_OF_DOCUMENT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_DOCUMENT, TURN_START, TURN_END)

CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('unknown role ' + (message.role | string)) }}
    {%- endif %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function or call %}
            {{- '\\n' if message.content or not loop.first else '' }}
            {{- '<tool_call>\\n{"name": ' + (call.name | tojson) + ', "arguments": ' }}
            {{- call.arguments if call.arguments is string else (call.arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""ChatML with the turns system, user, assistant, tool. Tools and calls are written as Hermes and Qwen
write them (<tools>, <tool_call>), without the English sentences round them: our assistants need not
speak English. Nothing is added that was not said: no default system turn."""

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


def with_chat(tokenizer: "Tokenizer") -> "Tokenizer":
    """The tokenizer with ChatML: missing control tokens are added at the end, old ids stay."""
    from endonym.tokenizer.folder import Backend, Tokenizer

    backend = Backend.from_str(tokenizer.backend.to_str())
    named = dict(tokenizer.named)
    wanted = [TURN_START, TURN_END]
    if "eos_token" not in named and END_OF_DOCUMENT not in backend.get_vocab():
        wanted.insert(0, END_OF_DOCUMENT)
    missing = [text for text in wanted if text not in backend.get_vocab()]
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in missing])
    named.setdefault("eos_token", END_OF_DOCUMENT)
    return Tokenizer(backend, named, CHATML)


def render(
    template: str,
    messages: Sequence[dict[str, Any]],
    add_generation_prompt: bool,
    tools: list[dict] | None,
    named: dict[str, str],
) -> str:
    """What `template` writes for a conversation, as tokenizer.apply_chat_template would.

    The renderer is transformers' (a sandboxed Jinja that sees plain data only); importing it costs
    about a second, so it is imported on first use.
    """
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (text,), _ = render_jinja_template(
            [list(messages)],
            tools=tools,
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            **named,
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(
            "the chat template refuses a conversation",
            where=f"roles {[message.get('role') for message in messages]}",
            got=f"{type(error).__name__}: {error}",
        ) from None
    return text


def turn_end(template: str, named: dict[str, str], tokens: Sequence[str]) -> str | None:
    """The first token that the template writes after an assistant's words, or None."""
    probe = [{"role": "user", "content": "qqq"}, {"role": "assistant", "content": "zzz"}]
    text = render(template, probe, False, None, named)
    after = text[text.rindex("zzz") + 3 :] if "zzz" in text else ""
    found = [(after.index(token), -len(token), token) for token in tokens if token in after]
    return min(found)[2] if found else None


def turn_start(
    rendered: Callable[..., str],
    messages: Sequence[dict[str, Any]],
    index: int,
    tools: list[dict] | None,
    text: str,
) -> int:
    """Where in `text`, the whole conversation, the words of assistant turn `index` begin.

    It is the length of what sampling would have seen: the turns before it and the generation
    prompt. A template for which that is no prefix of the whole would train on other tokens than it
    samples from, and is refused.
    """
    prompt = rendered(messages[:index], True, tools)
    if not text.startswith(prompt):
        same = next((i for i, (a, b) in enumerate(zip(prompt, text)) if a != b), len(text))
        raise DataError(
            "the chat template writes an assistant's turn otherwise than its generation prompt",
            where=f"message {index + 1} of {len(messages)}",
            wanted=f"...{prompt[max(0, same - 20) :]!r}",
            got=f"...{text[max(0, same - 20) : same + 60]!r}",
            do="use a template whose generation prompt is a prefix of the full conversation",
        )
    return len(prompt)


def broken(
    messages: list[dict[str, Any]], tools: list[dict] | None, control: re.Pattern[str]
) -> tuple[list[dict[str, Any]], list[dict] | None, str]:
    """The conversation with a mark inside every control string of its content, and the mark.

    The mark is a noncharacter that stands nowhere in the conversation ("" when none was needed), so
    taking it out of the rendered text restores the content exactly.
    """
    strings = list(_strings([messages, tools]))
    if not any(control.search(text) for text in strings):
        return messages, tools, ""
    used = set().union(*map(set, strings))
    mark = next((letter for letter in NONCHARACTERS if letter not in used), None)
    if mark is None:
        raise DataError(
            "a conversation holds control strings and every noncharacter U+FDD0 to U+FDEF",
            do="remove the row: noncharacters are not meant for interchange",
        )

    def split(text: str) -> str:
        return control.sub(lambda match: match.group()[0] + mark + match.group()[1:], text)

    return _mapped(messages, split), _mapped(tools, split), mark


def _strings(value: Any):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    return value
