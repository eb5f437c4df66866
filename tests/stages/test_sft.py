"""What fine-tuning refuses before it reads a row."""

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError
from endonym.model import hf
from endonym.stages.sft import SftConfig, sft
from endonym.tokenizer.folder import Tokenizer
from eval.tiny import context, model, tokenizer


def test_a_template_that_never_teaches_to_stop_is_refused_first(tmp_path):
    out = tmp_path / "out"
    hf.save(model(), out, eos_ids=tokenizer().stop_ids)
    endless = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    endless += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    Tokenizer(tokenizer().backend, tokenizer().named, endless).save(out)
    start = Artifact(out, {})
    with pytest.raises(DataError, match="does not end an assistant's turn"):
        sft(SftConfig(steps=1), context(tmp_path), tmp_path, model=start, data={})
