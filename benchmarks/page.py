"""The figures as a reader wants them: Markdown that also reads well on a terminal."""

from typing import Any

from benchmarks import distill, grpo, sandbox

HEAD = """# Endonym beside its peers

Written by `python -m benchmarks`; the same figures are in benchmarks.json. Every comparison ran arm by
arm in turn (A B C A B C ...), each arm in a process of its own, on the same weights and the same
tokens. CPU time is that of the process with all its threads and children. Figures are medians, in
brackets lowest to highest. A ratio is the other arm's cost over Endonym's, round by round: above 1,
Endonym takes less. Peak memory is the most that the process had resident, its libraries included.
"""

SFT_NOTE = """Every arm learns from the same {conversations} conversations in every step: {tokens:,} tokens
({shortest} to {longest} a conversation), {supervised:,} of them targets. Tokens that go through the model,
padding included: packed {packed:,}, padded {plain:,}, by length {sorted:,}. Tokens per second count the
real ones alone. Losses of the first {num_losses} steps differ by at most {difference:.1e} of themselves
between the arms (at most {tolerance:.0e} is allowed). TRL runs without logging, saving, evaluation and
gradient checkpointing; Endonym writes its logs."""


def page(result: dict[str, Any]) -> str:
    """All of a run's figures as Markdown."""
    parts = [HEAD, _machine(result["machine"], result["load_after"])]
    parts += [_sft(each) for each in result.get("sft", [])]
    parts += [_pretrain(each) for each in result.get("pretrain", [])]
    parts += [_reward(each) for each in result.get("reward", [])]
    parts += [grpo.page(each) for each in result.get("grpo", [])]
    parts += [distill.page(each) for each in result.get("distill", [])]
    parts += [_generation(each) for each in result.get("generation", [])]
    parts += [_tokenizers(each) for each in result.get("tokenizers", [])]
    parts += [_model(each) for each in result.get("model", [])]
    parts += [sandbox.page(each) for each in result.get("sandbox", [])]
    return "\n".join(parts)


MOST_THREADS = 2

BUSY = """
**The machine was busy with other work.** Seconds of the clock then say nothing, and CPU seconds are
raised by shared caches, for all arms in turn; take the ratios with care and measure again on an idle one.
"""


def _machine(machine: dict[str, Any], load_after: list[float]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, "
        f"{'with' if machine['bf16'] else 'without'} bf16 instructions; {machine['system']}, "
        f"Python {machine['python']}; {versions}. Load average before {machine['load'][0]}, "
        f"after {load_after[0]} (the benchmark itself included).\n"
        + (BUSY if machine["load"][0] > 0.5 or load_after[0] > 1.5 + MOST_THREADS else "")
    )


def _title(part: str, each: dict[str, Any]) -> str:
    threads = f"{each['threads']} thread" + ("s" if each["threads"] > 1 else "")
    size = f"{each['parameters'] / 1e6:.1f}M parameters"
    return f"## {part}: {size}, {each['precision']}, {threads}, {each['repeats']} rounds\n"


def _sft(each: dict[str, Any]) -> str:
    padding = each["block"]["tokens_with_padding"]
    note = SFT_NOTE.format(
        **each["block"],
        packed=padding["packed"],
        plain=padding["as they come"],
        sorted=padding["by length"],
        num_losses=len(each["rows"][0]["losses"]),
        difference=each["difference"],
        tolerance=each["tolerance"],
    )
    return "\n".join([_title("A training step", each), note, "", _arms(each["rows"]), ""])


def _pretrain(each: dict[str, Any]) -> str:
    notes = {
        "full": "rows of 512 tokens, each one stretch of text",
        "padded": "the documents of the conversations above, a row each, 8 at a time",
    }
    parts = [_title("A step of pre-training", each)]
    for layout in each["layouts"]:
        parts.append(
            f"{layout['layout'].capitalize()}: {notes[layout['layout']]}; {layout['tokens']:,} targets a "
            f"step. First losses differ by at most {layout['difference']:.1e} of themselves (at most "
            f"{each['tolerance']:.0e} is allowed).\n"
        )
        parts += [_arms(layout["rows"]), ""]
    return "\n".join(parts)


def _reward(each: dict[str, Any]) -> str:
    note = (
        f"{each['pairs']} pairs of conversations in every step, {each['tokens']:,} tokens. First losses "
        f"differ by at most {each['difference']:.1e} of themselves (at most {each['tolerance']:.0e} is "
        "allowed). Endonym packs whole pairs; TRL pads both sides to the longest of 8 texts.\n"
    )
    return "\n".join([_title("A step of a reward model", each), note, _arms(each["rows"]), ""])


def _arms(rows: list[dict[str, Any]]) -> str:
    heads = [
        "arm",
        "tokens per CPU-s",
        "CPU ratio",
        "tokens per s",
        "wall ratio",
        "peak",
        "peak ratio",
    ]
    told = [
        [
            row["arm"],
            _speed(row, "tokens_per_cpu_second"),
            _ratio(row, "cpu_ratio"),
            _speed(row, "tokens_per_second"),
            _ratio(row, "wall_ratio"),
            f"{row['peak_bytes'] / 1e9:.2f} GB",
            f"{row['peak_ratio']:.2f}",
        ]
        for row in rows
    ]
    return _table(heads, told)


def _generation(each: dict[str, Any]) -> str:
    lengths = each["prompt_tokens"]
    note = (
        f"Greedy, prompts of {min(lengths)} to {max(lengths)} tokens; the answers hold "
        f"{each['distinct_tokens']} different tokens. Where answers end apart, Endonym gives a row that "
        "is free to the next prompt, and transformers' batch goes on until its longest answer ends; "
        "tokens of answers alone count. Equal: tokens that are Endonym's, place by place."
    )
    heads = [
        "batch",
        "answers",
        "arm",
        "tokens per CPU-s",
        "CPU ratio",
        "tokens per s",
        "wall ratio",
        "equal",
        "peak",
    ]
    rows = [
        [
            str(row["batch"]),
            row["answers"],
            row["arm"],
            _speed(row, "tokens_per_cpu_second"),
            _ratio(row, "cpu_ratio"),
            _speed(row, "tokens_per_second"),
            _ratio(row, "wall_ratio"),
            f"{row['equal_tokens']:.1%}",
            f"{row['peak_bytes'] / 1e9:.2f} GB",
        ]
        for row in each["rows"]
    ]
    return "\n".join([_title("Generation", each), note, "", _table(heads, rows), ""])


def _tokenizers(each: dict[str, Any]) -> str:
    threads = f"{each['threads']} thread" + ("s" if each["threads"] > 1 else "")
    title = (
        f"## Tokenizers: {each['language']}, {each['size']:,} tokens, {threads}, "
        f"{each['repeats']} rounds\n"
    )
    note = (
        f"Learnt from {each['learnt_bytes'] / 1e6:.1f} MB, which are also what is encoded; bytes per "
        f"token on {each['held_out_bytes'] / 1e6:.1f} MB held out. Peak is the whole process, in "
        "brackets before the work began."
    )
    heads = [
        "arm",
        "MB per CPU-s",
        "CPU ratio",
        "MB per s",
        "wall ratio",
        "peak",
        "bytes per token",
    ]
    tables = []
    for part, name in (("learn", "Learning"), ("encode", "Encoding")):
        rows = [
            [
                row["arm"],
                "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["mb_per_cpu_second"]),
                _ratio(row, "cpu_ratio"),
                "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["mb_per_second"]),
                _ratio(row, "wall_ratio"),
                f"{row['peak_bytes'] / 1e9:.2f} GB ({row['before_bytes'] / 1e9:.2f})",
                f"{row['bytes_per_token']:.2f}" if "bytes_per_token" in row else "",
            ]
            for row in each[part]
        ]
        width = len(heads) if part == "learn" else -1
        tables += [f"{name}:", "", _table(heads[:width], [row[:width] for row in rows]), ""]
    return "\n".join([title, note, "", *tables])


MODEL_NOTE = """A pass reads {texts} texts of {row} tokens and forms all logits; in training it ends
with the loss and the gradients. Decoding is greedy, {new_tokens} tokens after each prompt of {prompt_tokens},
the reading of which is in the time. Peak is of a process that does this work alone, in
brackets before the work began (on a GPU: what torch allocated there). Difference is from transformers in
float32; every arm checks what it gave in its warm-up and after every turn. Forward: {forward} (at most
{most_forward:.2g}). Training: loss, norm and embedding's gradient, relative (at most {most_training:.2g}).
Decoding: {decoding} (at most {most_decoding:.2g})."""


def _model(each: dict[str, Any]) -> str:
    is_exact = each["precision"] == "float32"
    texts, row = each["tokens_of_a_pass"]
    note = MODEL_NOTE.format(
        **each,
        texts=texts,
        row=row,
        **{f"most_{work}": most for work, most in each["tolerance"].items()},
        forward="the largest of any logit" if is_exact else "root mean square, relative",
        decoding="share of other tokens"
        if is_exact
        else "what drawn tokens lack to the best logit, relative, on average",
    )
    has_mfu = any(row["mfu"] for row in each["rows"])
    heads = [
        "work",
        "batch",
        "arm",
        "tokens per CPU-s",
        "CPU ratio",
        "tokens per s",
        "wall ratio",
        "peak",
        "peak ratio",
        "difference",
        "MFU",
    ]
    rows = [
        [
            row["work"] + (" on the GPU" if row["device"] == "cuda" else ""),
            str(row["batch"]),
            row["arm"],
            _speed(row, "tokens_per_cpu_second"),
            _ratio(row, "cpu_ratio"),
            _speed(row, "tokens_per_second"),
            _ratio(row, "wall_ratio"),
            f"{row['peak_bytes'] / 1e9:.2f} GB ({row['before_bytes'] / 1e9:.2f})",
            f"{row['peak_ratio']:.2f}",
            f"{row['difference']:.1e}",
            "{median:.1%} ({low:.1%} to {high:.1%})".format(**row["mfu"]) if row["mfu"] else "",
        ]
        for row in each["rows"]
    ]
    width = len(heads) if has_mfu else -1
    table = _table(heads[:width], [row[:width] for row in rows])
    return "\n".join([_title(f"The model, {each['shape']}", each), note, "", table, ""])


def _speed(row: dict[str, Any], key: str) -> str:
    return "{median:,.0f} ({low:,.0f} to {high:,.0f})".format(**row[key])


def _ratio(row: dict[str, Any], key: str) -> str:
    is_ours = all(value == 1 for value in row[key].values())
    return "1" if is_ours else "{median:.2f} ({low:.2f} to {high:.2f})".format(**row[key])


def _table(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
        for line in lines
    )
