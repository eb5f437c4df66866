"""Our chat template (ChatML), and what a template's own rendering tells about where a turn ends."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from endonym.tokenizer.messages import PLACEHOLDERS, THOUGHTS

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer

END_OF_DOCUMENT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_DOCUMENT, TURN_START, TURN_END)

CHATML = """\
{%- macro written(parts) %}
    {%- for part in parts or [] %}
        {%- if part.type == 'text' %}
            {{- part.text }}
        {%- elif part.type in ['image', 'audio', 'video'] %}
            {{- {'image': '<|image|>', 'audio': '<|audio|>', 'video': '<|video|>'}[part.type] }}
        {%- else %}
            {{- raise_exception('unknown part of a content: ' + (part.type | string)) }}
        {%- endif %}
    {%- endfor %}
{%- endmacro %}
{%- set thoughtless = enable_thinking is defined and enable_thinking is false %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {%- set content = messages[0].content %}
        {{- (content if content is string else written(content)) + '\\n\\n' }}
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
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.role == 'assistant' and (thoughtless or message.reasoning_content is string) %}
            {%- set after = messages[loop.index:] | selectattr('role', 'equalto', 'user') | list %}
            {%- if keep_thinking or not after %}
                {{- '<think>\\n' + ('' if thoughtless else message.reasoning_content) }}
                {{- '\\n</think>\\n\\n' }}
            {%- endif %}
        {%- elif message.role == 'tool' and (message.tool_call_id or message.name) %}
            {%- set before = messages[:loop.index0] | rejectattr('role', 'equalto', 'tool') | list %}
            {%- set calls = before[-1].tool_calls or [] if before else [] %}
            {%- set own = calls | selectattr('id', 'equalto', message.tool_call_id) | list %}
            {%- if calls | length > 1 and not message.tool_call_id %}
                {{- {'name': message.name} | tojson + '\\n' }}
            {%- elif calls | length > 1 and not own %}
                {{- raise_exception('no call has the tool_call_id ' + message.tool_call_id | string) }}
            {%- elif calls | length > 1 %}
                {%- set name = (own[0].function or own[0]).name %}
                {{- {'name': name, 'call': calls.index(own[0]) + 1} | tojson + '\\n' }}
            {%- endif %}
        {%- endif %}
        {{- message.content if message.content is string else written(message.content) }}
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
    {%- if thoughtless %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
"""ChatML with the turns system, user, assistant, tool. Tools and calls are written as Hermes and Qwen
write them (<tools>, <tool_call>), without the English sentences round them: our assistants need not
speak English. Nothing is added that was not said: no default system turn.

Several calls at once are answered by as many tool turns; each then begins with a line of JSON that
names its call, {"name": "weather", "call": 2}, counted from 1 (by tool_call_id; a turn that gives
only a name gets {"name": ...}; one that gives neither is told by its place alone). The ids
themselves are a server's invention that no model has written, so they are not shown to one.

Thoughts are written <think>\\n...\\n</think>\\n\\n before the words, and left out of the turns before
the last user's, as Qwen3 and Solar Open do. Variables, with the names that vLLM's and Qwen's users
pass in chat_template_kwargs:

    enable_thinking  false: the generation prompt and the current turns hold an empty block of
                     thoughts, which tells a model trained so to answer at once. true is the default
    keep_thinking    true: earlier turns keep their thoughts too. false is the default
"""


def with_chat(tokenizer: "Tokenizer", modalities: Sequence[str] = ()) -> "Tokenizer":
    """The tokenizer with ChatML: missing control tokens are added at the end, old ids stay.

    modalities: of "image", "audio", "video", those whose placeholders are added as well
    """
    from endonym.tokenizer.folder import Backend, Tokenizer

    backend = Backend.from_str(tokenizer.backend.to_str())
    named = dict(tokenizer.named)
    wanted = [TURN_START, TURN_END, *(PLACEHOLDERS[kind] for kind in modalities)]
    if "eos_token" not in named and END_OF_DOCUMENT not in backend.get_vocab():
        wanted.insert(0, END_OF_DOCUMENT)
    missing = [text for text in wanted if text not in backend.get_vocab()]
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in missing])
    named.setdefault("eos_token", END_OF_DOCUMENT)
    return Tokenizer(backend, named, CHATML)


def drops_nothing(messages: Sequence[dict[str, Any]], variables: dict[str, Any]) -> bool:
    """Whether CHATML writes every turn of this conversation alike, whatever follows it."""
    has_thoughts = any(message.get(name) is not None for message in messages for name in THOUGHTS)
    return not variables and not has_thoughts


def turn_end(render: Callable[[list[dict]], str], tokens: Sequence[str]) -> str | None:
    """The first token that the template writes after an assistant's words, or None."""
    text = render([{"role": "user", "content": "qqq"}, {"role": "assistant", "content": "zzz"}])
    after = text[text.rindex("zzz") + 3 :] if "zzz" in text else ""
    found = [(after.index(token), -len(token), token) for token in tokens if token in after]
    return min(found)[2] if found else None


def check_template(tokenizer: "Tokenizer") -> None:
    """Once before a run: what an assistant's turn teaches last is a token at which sampling stops.

    A model that was never taught to stop talks until its window is full, and nothing in its loss
    shows that. Two exchanges are encoded as training would encode them; DataError where the template
    is missing, fails, or ends a turn with no single token of the vocabulary, and says what to do.
    """
    talk = [
        {"role": role, "content": content}
        for content in ("qqq", "sss")
        for role in ("user", "assistant")
    ]
    for ids, supervised in tokenizer.training_rows(talk):
        last = len(ids) - 1 - supervised[::-1].index(True)
        assert ids[last] in tokenizer.stop_ids, "training_rows ends each turn at a stop token"
