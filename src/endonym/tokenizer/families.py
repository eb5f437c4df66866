"""Families of byte-level tokenizers: how each splits text before merging, and its special tokens.

A vocabulary file alone (a tiktoken rank file, vocab.json with merges.txt) says neither. The facts
here are those of the makers' own code: tiktoken's openai_public.py, llama-models' tokenizer.py for
Llama 3 and 4, Qwen's tokenization_qwen.py and Qwen2's tokenizer class in transformers. Patterns are
written for Oniguruma, which the tokenizers library uses: there `$` ends a line and `{1,3}+` repeats,
so tiktoken's possessive forms are written plainly.
"""

from dataclasses import dataclass, field

from tokenizers import Regex, pre_tokenizers

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.tokenizer.pretokenize import GPT2

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"

CL100K = _WORDS % "{1,3}" + r"|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
"""tiktoken's present pattern: white space that ends a text stays whole (the first release's did not)."""
LLAMA3 = _WORDS % "{1,3}" + _SPACES
QWEN = _WORDS % "" + _SPACES
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
)


@dataclass(frozen=True)
class Family:
    """A family's rules.

    pattern: split pattern (Oniguruma); nfc: whether text is composed first; special: its control
    tokens by id; named: which of them play a part; opens: whether bos_token is put before a text;
    ranks: size of the rank file, by which a file without a name is told (0: none is known).
    """

    name: str
    pattern: str
    ranks: int = 0
    special: dict[str, int] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    opens: bool = False
    nfc: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        if self.pattern == GPT2:  # the form in which GPT-2's own tokenizer.json is written
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        split = pre_tokenizers.Split(Regex(self.pattern), "isolated")
        return pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def special_ids(self, ranks: int) -> dict[str, int]:
        """The special tokens of a vocabulary of so many ranks: none where the family has another."""
        return self.special if ranks == self.ranks else {}


def _llama3() -> dict[str, int]:
    names = ["begin_of_text", "end_of_text"]
    names += ["reserved_special_token_0", "reserved_special_token_1"]
    names += ["finetune_right_pad_id", "step_id", "start_header_id", "end_header_id"]
    names += ["eom_id", "eot_id", "python_tag", "image"]
    names += [f"reserved_special_token_{2 + n}" for n in range(256 - len(names))]
    return {f"<|{name}|>": 128_000 + n for n, name in enumerate(names)}


def _llama4() -> dict[str, int]:
    def reserved(part: str, start: int, end: int) -> list[str]:
        return [f"{part}_reserved_special_token_{n}" for n in range(start, end)]

    names = ["begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix"]
    names += ["header_start", "header_end", "eom", "eot", "step"]
    names += reserved("text_post_train", 0, 6)
    names += ["python_start", "python_end", "finetune_right_pad"]
    names += reserved("text_post_train", 8, 69)
    names += ["image_start", "image_end", *reserved("vision", 0, 2)]
    names += ["tile_x_separator", "tile_y_separator", *reserved("vision", 2, 6)]
    names += ["image", *reserved("vision", 6, 7), "patch", *reserved("vision", 7, 1048)]
    names += [*reserved("reasoning", 0, 8), "reasoning_thinking_start", "reasoning_thinking_end"]
    names += [f"reserved_special_token_{n}" for n in range(2048 - len(names))]
    return {f"<|{name}|>": 200_000 + n for n, name in enumerate(names)}


def _qwen() -> dict[str, int]:
    names = ["endoftext", "im_start", "im_end", *(f"extra_{n}" for n in range(205))]
    return {f"<|{name}|>": 151_643 + n for n, name in enumerate(names)}


_END = "<|endoftext|>"
_FIM = {"<|fim_prefix|>": 100_258, "<|fim_middle|>": 100_259, "<|fim_suffix|>": 100_260}
_LLAMA = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}

FAMILIES = {
    family.name: family
    for family in (
        Family("gpt2", GPT2, 50_256, {_END: 50_256}, {"eos_token": _END}),
        Family("p50k", GPT2, 50_280, {_END: 50_256}, {"eos_token": _END}),
        Family(
            "cl100k",
            CL100K,
            100_256,
            {_END: 100_257, **_FIM, "<|endofprompt|>": 100_276},
            {"eos_token": _END},
        ),
        Family(
            "o200k",
            O200K,
            199_998,
            {_END: 199_999, "<|endofprompt|>": 200_018},
            {"eos_token": _END},
        ),
        Family("llama3", LLAMA3, 128_000, _llama3(), _LLAMA, opens=True),
        Family("llama4", O200K, 200_000, _llama4(), _LLAMA, opens=True),
        Family("qwen", QWEN, 151_643, _qwen(), {"eos_token": _END}, nfc=True),
    )
}
CLASSES = {
    "GPT2Tokenizer": "gpt2",
    "RobertaTokenizer": "gpt2",
    "WhisperTokenizer": "gpt2",
    "CodeGenTokenizer": "gpt2",
    "Qwen2Tokenizer": "qwen",
}
"""transformers' tokenizer classes that read vocab.json and merges.txt, and the family of each."""


def family(pattern: str) -> Family:
    """A family by its name; anything with a backslash or a bracket is a split pattern of its own."""
    if pattern in FAMILIES:
        return FAMILIES[pattern]
    if not set(pattern) & set("\\[("):
        raise RecipeError(
            f"there is no tokenizer family {pattern!r}",
            wanted=f"{', '.join(FAMILIES)}, or a split pattern (a regular expression)",
            do=nearest(pattern, FAMILIES),
        )
    return Family("given", pattern)


def by_ranks(count: int) -> Family | None:
    """The family whose rank file has so many tokens, or None."""
    return next((each for each in FAMILIES.values() if each.ranks == count), None)
