"""A model's scores: bits per byte of held-out text, choices by likelihood, answers, language kept, and
answers found in a library."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.eval.table import Column, Figure
from endonym.stages.shelf import AgentConfig, opened
from endonym.tasks.needle import NeedleConfig

if TYPE_CHECKING:
    from endonym.engine.backends import Backend
    from endonym.eval.run import Reply
    from endonym.tasks.base import Item


class EvaluateConfig(Config):
    max_tokens: int = Field(default=64, gt=0)
    """Of one reply."""
    ask_choices: bool = False
    """Put choice items to the model as questions too, besides scoring their continuations."""
    sampled_at: float = Field(default=1.0, ge=0)
    """Temperature at which keeping to the language is measured besides greedy; 0: greedy alone.
    Typhoon's cards give 0.7 and 1.0; the higher one shows more."""
    samples: int = Field(default=1, ge=0)
    """Replies shown in the report, for each skill of each exam."""
    also: list[Literal["contains", "sampled", "foreign"]] = []
    """More figures of answers: contains_L; answers_L_sampled; foreign_L and mixed_L."""
    tries: int = Field(default=1, gt=0)
    """Replies to each item at the temperature `sampled_at`; beyond 1, pass@k too."""
    agent: AgentConfig = AgentConfig()
    """Where a library is plugged in; max_tokens of the stage is then the most of one turn."""
    looked_up: list[str] = []
    """Labels of the items that are asked with the library too; empty: all."""
    needles: NeedleConfig | None = None
    """Look for needles in the text of this language, or, where none is given, in the almanac's."""
    seed: int = 0

    @model_validator(mode="after")
    def _samples_what_it_measures(self) -> Self:
        if not self.sampled_at and (self.tries > 1 or {"sampled", "foreign"} & set(self.also)):
            raise ValueError("sampled replies need a temperature: sampled_at above 0")
        return self


def evaluate(
    config: EvaluateConfig,
    context: Context,
    out: Path,
    *,
    model: Artifact,
    items: dict[str, Artifact],
    text: dict[str, Artifact],
    library: Artifact | None = None,
    embedder: Artifact | None = None,
) -> Outcome:
    """scores.json (columns, figures with intervals, samples), replies.jsonl and choices.jsonl; and
    values.jsonl, what each item gave of each figure, for paired differences (eval/paired.py).

    The labels of `items` and `text` are languages. Figures, by label L:

        bpb_L        bits per byte of the text, interval by bootstrap over documents
        choices_L    share of choice items whose right continuation is the most probable per byte
        answers_L    share of right short answers, greedy      (items of kind "answer", not switched)
        asked_L      share of choice items answered rightly in words, greedy (with ask_choices)
        rules_L      share of replies that obey every checkable rule, greedy ("constraint")
        language_L   share of replies that keep to the language, greedy; only where one is asked for
        language_L_sampled   the same at the temperature `sampled_at`
        load_L       entropy of the experts' load on the text's first tokens, mean over layers: 1 where
                     evenly used, 0 where one expert has all
        dead_L       experts of a layer that get none of these tokens, mean over layers
        needle_min   share of needles found in the worst cell of the grid (with needles); needle_mean,
                     needle_<length>, needle_tokens, needle_choice: eval/needles.figures. scores.json has
                     every cell under "needles"

    With `also`, at the temperature `sampled_at` where it says so:

        contains_L   share of short answers that hold the gold string, greedy: fair to a model that
                     recites where others answer. contains_L_sampled with "sampled"
        answers_L_sampled    share of right short answers, sampled
        foreign_L    mean probability mass on tokens of a foreign script, along sampled replies to items
                     that ask for a language (eval/foreign.py)
        mixed_L      share of these replies that hold a letter of a foreign script

    With `tries` = k above 1, answers_L_sampled (mean over the tries) and

        passk_L      share of items that one of k sampled replies answers rightly: pass@k where as many
                     are drawn as are counted

    With a library, searched by words and, where an embedder is given, by its vectors too, of the short
    answers (rollouts/agent.py):

        agent_L      share of right last words, greedy; agent_L_sampled and agentpassk_L as above
        calls_L      share of greedy episodes with a call that could be made

    A model whose tokenizer has no chat template cannot be asked: what needs replies stays empty.

    With context.server all replies and episodes are those of one server, which is started for the model under
    its address; a note and the figure answered_by say so. What is read and not written stays our engine's:
    bpb_L, choices_L, foreign_L (along the server's replies), needles, experts.
    """
    from endonym.engine.answered import answered_by
    from endonym.eval.intervals import ratio
    from endonym.eval.likelihood import bits_per_byte, choice_scores
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.stages.exam import Exam, share
    from endonym.stages.tokenizer import Texts
    from endonym.tasks.base import read_items
    from endonym.tokenizer.folder import Tokenizer

    if embedder and not library:
        raise RecipeError(
            "an embedder without anything to search", where="embedder", do="plug in a library too"
        )
    context = settled(context)
    words = Tokenizer.load(model.path)
    net = hf.load(model.path, device=context.device)
    figures: dict[str, Figure] = {}
    values: dict[str, list[Any]] = {}
    for label, documents in text.items():
        bits = bits_per_byte(net, words, list(Texts({label: documents})), context)
        measured = ratio([b.bits for b in bits], [b.bytes for b in bits], config.seed)
        figures[f"bpb_{label}"] = Figure(measured.value, measured.low, measured.high, measured.n)
        values[f"bpb_{label}"] = [(b.bits, b.bytes) for b in bits]
        figures |= _expert_load(net, words, label, documents, context)

    cells = []
    if config.needles:
        from endonym.eval.needles import figures as of_needles
        from endonym.eval.needles import needle_grid

        cells = needle_grid(net, words, haystack(config.needles, text), config.needles, context)
        figures |= {key: Figure(value) for key, value in of_needles(cells).items()}

    books = opened(library, embedder, config.agent, context) if library else None
    samples, by_skill, notes = [], {}, []
    truncated = 0
    backend: Backend | None = None
    with (
        ExitStack() as stack,
        open(out / "choices.jsonl", "w", encoding="utf-8") as choices_file,
        open(out / "replies.jsonl", "w", encoding="utf-8") as replies_file,
    ):
        for label, artifact in items.items():
            every = read_items(artifact.file("items.parquet"))
            choices = [item for item in every if item.kind == "choice"]
            asked = every if config.ask_choices else [i for i in every if i.kind != "choice"]
            scored = choice_scores(net, words, choices, context)
            if scored:
                figures[f"choices_{label}"] = share([one.correct_norm for one in scored])
                values[f"choices_{label}"] = [float(one.correct_norm) for one in scored]
            truncated += sum(one.truncated for one in scored)
            for one in scored:
                row = {"exam": label, "id": one.id, "chosen": one.chosen_norm, "gold": one.gold}
                choices_file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if words.template is None or not asked:
                continue
            backend = backend or stack.enter_context(_answering(net, model, context))
            exam = Exam(net, backend, words, label, asked, config, context)
            exam.ask(replies_file)
            by_skill[label] = _by_skill(exam.greedy)
            samples += _samples(exam.greedy, config.samples)
            if books is not None and label in (config.looked_up or items):
                with open(out / "episodes.jsonl", "a", encoding="utf-8") as episodes_file:
                    exam.look_up(books, episodes_file)
            figures |= exam.figures
            values |= exam.values
    if truncated:
        notes.append(
            f"{truncated} choice items were longer than the model's context and were read in windows."
        )
    asked_of = answered_by(context.scratch)
    if asked_of:
        notes.append(f"Replies are by: {asked_of['answered_by']}. What is read is by our engine.")
    if words.template is None:
        notes.append("The base model has no chat template, so it was not asked questions.")
    columns = [vars(_column(key, config.sampled_at)) for key in figures]
    scores = {
        "columns": columns,
        "figures": {key: vars(figure) for key, figure in figures.items()},
        "by_skill": by_skill,
        "samples": samples,
        "notes": notes,
        "needles": [vars(cell) for cell in cells],
    }
    (out / "scores.json").write_text(
        json.dumps(scores, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    with open(out / "values.jsonl", "w", encoding="utf-8") as values_file:
        for key, each in values.items():
            values_file.write(json.dumps({"figure": key, "values": each}) + "\n")
    if not figures:
        raise RecipeError("nothing was measured", wanted="items or text with rows")
    plain = {key: figure.value for key, figure in figures.items()} | asked_of
    return Outcome(plain, [licence for one in items.values() for licence in one.record["licences"]])


@contextmanager
def _answering(net: Any, model: Artifact, context: Context) -> "Iterator[Backend]":
    """Who replies: our engine, or a server of the model's folder."""
    from endonym.engine.answered import note
    from endonym.engine.backends import Own, serving
    from endonym.eval.run import ROWS

    if context.server:
        backends = serving(model.path, model.address)
    else:
        backends = nullcontext(Own(net, "evaluated", batch=context.rows_per_device or ROWS))
    with backends as backend:
        note(context.scratch, backend)
        yield backend


def haystack(config: NeedleConfig, text: dict[str, Artifact], documents: int = 2000) -> list[str]:
    """Texts to hide needles in: those of the needles' language, or so many of the almanac's."""
    from endonym.stages.tokenizer import Texts

    if config.language in text:
        return list(Texts({config.language: text[config.language]}))
    from endonym.synth import almanac

    rows = almanac.documents(config.language, split="test", seed=config.seed, amount=documents)
    return [row.text for row in rows]


def _expert_load(
    net: Any, words: Any, label: str, documents: Artifact, context: Context, tokens: int = 4096
) -> dict[str, Figure]:
    """load_L and dead_L of a model with experts, {} of one without; over whole documents, read apart."""
    import torch

    from endonym.methods.balance import dead, entropy, load
    from endonym.model.experts import collect_routing
    from endonym.stages.tokenizer import Texts

    experts = getattr(net.config, "experts", None)
    if experts is None:
        return {}
    loads: dict[int, Any] = {}
    read = 0
    for text in Texts({label: documents}):
        ids = words.encode(text, literal=True)[: net.config.max_position_embeddings]
        if not ids:
            continue
        with torch.no_grad(), collect_routing(net) as routes:
            net(torch.tensor([ids], device=context.device))
        for route in routes:
            loads[route.layer] = loads.get(route.layer, 0) + load(route.chosen, experts.count)
        read += len(ids)
        if read >= tokens:
            break
    if not loads:
        return {}
    mean = lambda found: sum(found) / len(found)  # noqa: E731
    return {
        f"load_{label}": Figure(mean([entropy(one) for one in loads.values()]), n=read),
        f"dead_{label}": Figure(mean([dead(one) for one in loads.values()]), n=read),
    }


TITLES = {
    "load": ("Expert load on {language}", "higher", "entropy"),
    "dead": ("Dead experts on {language}", "lower", "a layer"),
    "bpb": ("{language} text", "lower", "bits/byte"),
    "choices": ("{language} choices", "higher", "%"),
    "answers": ("{language} answers", "higher", "%"),
    "asked": ("{language} choices, asked", "higher", "%"),
    "rules": ("{language} rules kept", "higher", "%"),
    "language": ("{language} only", "higher", "%"),
    "contains": ("{language} answer contained", "higher", "%"),
    "foreign": ("Foreign script mass, {language}", "lower", "%"),
    "mixed": ("{language} replies with foreign letters", "lower", "%"),
    "agent": ("{language} answers, library", "higher", "%"),
    "calls": ("{language} library used", "higher", "%"),
    "pass": ("{language} pass@{k}", "higher", "%"),
    "agentpass": ("{language} pass@{k}, library", "higher", "%"),
}
DRAWN = ("foreign", "mixed", "pass", "agentpass")
"""Figures of sampled replies whose keys do not say so."""

NEEDLES = {
    "min": "Needles, worst cell",
    "mean": "Needles, mean",
    "tokens": "Needles, tokens",
    "choice": "Needles, chosen of 4",
}


def _column(key: str, temperature: float) -> Column:
    """What a reader is told of a figure, from its key."""
    from endonym.lang.pack import pack

    what, _, label = key.removesuffix("_sampled").partition("_")
    what, tries = what.rstrip("0123456789"), what.lstrip("abcdefghijklmnopqrstuvwxyz")
    is_sampled = key.endswith("_sampled") or what in DRAWN
    if what == "needle":
        return Column(key=key, title=NEEDLES.get(label, f"Needles at {label}"), unit="%")
    title, better, unit = TITLES[what]
    try:
        name = pack(label).name if len(label) <= 3 else label
    except DataError:  # a label that is no language
        name = label
    title = title.format(language=name, k=tries) + (f" T={temperature:g}" if is_sampled else "")
    return Column(key=key, title=title, better=better, unit=unit)


def _by_skill(pairs: list[tuple["Item", "Reply"]]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[float]] = {}
    for item, reply in pairs:
        groups.setdefault(f"{item.kind}/{item.task}", []).append(reply.score)
    return {
        name: {"score": sum(scores) / len(scores), "n": len(scores)}
        for name, scores in sorted(groups.items())
    }


def _samples(pairs: list[tuple["Item", "Reply"]], number: int) -> list[dict[str, Any]]:
    """The first `number` items of each skill in an order fixed by their ids, so that rows line up."""
    taken: dict[str, int] = {}
    shown = []
    for item, reply in sorted(pairs, key=lambda p: hashlib.sha256(p[0].id.encode()).digest()):
        taken[item.task] = taken.get(item.task, 0) + 1
        if taken[item.task] <= number:
            shown.append(
                {
                    "id": item.id,
                    "prompt": item.messages[-1]["content"],
                    "language": item.language,
                    "expected": item.choices[int(item.answer)] if item.choices else item.answer,
                    "reply": {"text": reply.text, "ok": reply.score == 1.0, "reason": reply.reason},
                }
            )
    return shown


STAGE = Stage(
    name="evaluate",
    version=3,  # 2: an answer inside an unfinished thought is none. 3: keeps what each item gave
    kind="scores",
    config=EvaluateConfig,
    slots={
        "model": Slot("model"),
        "items": Slot("items", many=True, optional=True),
        "text": Slot("documents", many=True, optional=True),
        "library": Slot("sections", optional=True),
        "embedder": Slot("model", optional=True),
    },
    function=evaluate,
)
