"""Endonym against its peers, side by side in one run: `python -m benchmarks [PART]...`.

    machine     what it ran on
    material    the weights, the texts and the prompts that all arms share
    turns       an arm's side: wait for one's turn, work, say what it took
    compare     the other side: arms in processes of their own, turn by turn; medians and ratios
    model       the network alone: forward, backward, decoding; dense and with experts
    sft         training arms: Endonym, TRL's SFTTrainer, a plain transformers loop
    generation  sampling arms: Endonym's engine, transformers' generate
    tokenizers  learning, extending and encoding: Endonym, the stock trainer, transformers, tiktoken
    merge       merging folders: Endonym, mergekit (a command of its own)
    superbpe    what superwords gain over plain BPE (a command of its own)
    page        the figures as text and as docs/results/benchmarks.md

Speed is no test: nothing here passes or fails by a time. What does fail is a comparison of different
work: arms whose losses or answers differ where they must not.
"""
