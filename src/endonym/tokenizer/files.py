"""The files beside tokenizer.json in a Hugging Face folder: names of tokens, and the chat template."""

import json
from pathlib import Path
from typing import Any

from endonym.core.errors import DataError
from endonym.tokenizer.backend import check_size

NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")

CONFIG, SPECIAL, TEMPLATE = (
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip

MAX_CONFIG = 1 << 24
"""Bytes of one of them."""


def read_config(folder: Path) -> dict[str, Any]:
    """What both JSON files say; where they differ, tokenizer_config.json is right."""
    return read_json(folder / SPECIAL) | read_json(folder / CONFIG)


def read_json(file: Path) -> dict[str, Any]:
    """The object of a file, {} where there is none."""
    if not file.is_file():
        return {}
    check_size(file, MAX_CONFIG)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError("a file of the tokenizer is no JSON", where=file, got=error) from None
    if not isinstance(found, dict):
        raise DataError("a file of the tokenizer is no JSON object", where=file)
    return found


def named_tokens(config: dict[str, Any], folder: Path) -> dict[str, str]:
    """{"eos_token": "<|endoftext|>", ...}, as far as the configuration names them."""
    return {name: content(config[name], folder) for name in NAMED if config.get(name)}


def content(token: Any, folder: Path) -> str:
    """A token as a string; some folders write {"content": "</s>", "lstrip": false, ...}."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise DataError("a named token is not a string", where=folder, got=repr(token)[:80])
    return text


def read_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template, in a file of its own or in the configuration; None where there is none."""
    file = folder / TEMPLATE
    template = config.get("chat_template")
    if file.is_file():
        check_size(file, MAX_CONFIG)
        try:
            template = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError("the chat template is not UTF-8", where=file, got=error) from None
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if not isinstance(template, str | None):
        raise DataError(
            "the chat template is not a string", where=folder, got=type(template).__name__
        )
    return template


def write(folder: Path, named: dict[str, str], template: str | None) -> None:
    """The class is written as PreTrainedTokenizerFast: model-specific classes (LlamaTokenizer,
    Qwen2Tokenizer) rebuild the pre-tokenizer from their own source and would lose ours."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
        **named,
    }
    for name, value in ((CONFIG, config), (SPECIAL, named)):
        text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    if template is not None:
        (folder / TEMPLATE).write_text(template, encoding="utf-8")
