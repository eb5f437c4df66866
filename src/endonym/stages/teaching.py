"""What a distilling stage has of its teacher: its place, its vocabulary, its words, and the objective."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.stages.training import BalanceConfig, NextTokens

if TYPE_CHECKING:
    from torch import Tensor

    from endonym.methods.batch import Loss, Rows
    from endonym.model.checkpoint import CausalLM
    from endonym.rollouts.asked import Asked
    from endonym.rollouts.distilled import Guide
    from endonym.rollouts.states import States
    from endonym.rollouts.teacher import Teacher
    from endonym.rollouts.vocabularies import Names
    from endonym.tokenizer.folder import Tokenizer

TABLES = ("conversations.parquet", "prompts.parquet", "items.parquet")


def asked_rows(one: Artifact) -> Iterator[Any]:
    """The rows of an artifact that asks: conversations, prompts, or items as prompts."""
    from endonym.data.document import Conversation, Prompt, read_table
    from endonym.tasks.base import as_prompt, read_items

    table = next(name for name in TABLES if name in one.record["files"])
    if table == "items.parquet":
        return map(as_prompt, read_items(one.file(table)))
    return read_table(one.file(table), Conversation if table == TABLES[0] else Prompt)


def asked_stores(
    data: dict[str, Artifact],
    words: "Tokenizer",
    context: Context,
    *,
    folder: str = "asked",
    prefix: str = "",
    template: dict[str, Any] | None = None,
    every: bool = False,
) -> "dict[str, Asked]":
    """The prompts and answers of each label as ids, in context.scratch; of several processes the main
    one writes them."""
    from endonym.rollouts.asked import Asked
    from endonym.train.parallel import ranks

    def stores() -> "dict[str, Asked]":
        return {
            label: Asked.build(
                context.scratch / folder / label, asked_rows(one), words,
                key=one.address, prefix=prefix, variables=template, every=every,
            )
            for label, one in data.items()
        }  # fmt: skip

    here = ranks(context)
    found = stores() if here.main else {}
    here.barrier()
    return found or stores()


class Distilling(NextTokens):
    """The objective: the teacher's distribution on every answer, over the tokens that both sides have.

    head: the teacher's, of these tokens; rows: which rows of the student's they are (rows_of); cap: the
    teacher's. Its states are rows.extra["states"] or, where rows bring none, those of `teacher`, run here.
    """

    def __init__(
        self,
        head: "Tensor",
        rows: "Tensor | int",
        cap: float | None,
        teacher: "Teacher | None",
        balance: BalanceConfig,
        **settings: Any,
    ):
        super().__init__(balance, mtp_weight=0.0)
        self.head, self.rows, self.cap, self.teacher = head, rows, cap, teacher
        self.settings = settings

    def loss(self, model: "CausalLM", rows: "Rows") -> "Loss":
        from endonym.methods.distill import distill

        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        theirs = rows.extra.get("states")
        return distill(
            hidden,
            chosen(model.head, self.rows),
            self.teacher.states(rows) if theirs is None else theirs,
            self.head,
            rows.labels,
            rows.weights,
            rows.extra.get("given"),
            caps=(model.cap, self.cap),
            **self.settings,
        )


class Spanning(NextTokens):
    """The objective between two tokenizers (methods/spans.py). shared: ids of the strings that both have."""

    def __init__(
        self,
        head: "Tensor",
        shared: "Names",
        cap: float | None,
        balance: BalanceConfig,
        **settings: Any,
    ):
        import torch

        super().__init__(balance, mtp_weight=0.0)
        ids = (shared.student, shared.teacher)
        self.shared = tuple(torch.from_numpy(each).to(head.device) for each in ids)
        self.head, self.cap, self.settings = head, cap, settings

    def loss(self, model: "CausalLM", rows: "Rows") -> "Loss":
        from endonym.methods.spans import spans

        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        return spans(
            hidden, model.head, rows.extra["states"], self.head, self.shared, rows.labels,
            rows.weights, rows.extra["starts"], rows.extra["logps"], rows.extra.get("given"),
            caps=(model.cap, self.cap), **self.settings,
        )  # fmt: skip


def rows_of(ids: np.ndarray) -> "Tensor | int":
    """Which rows of a head belong to ids: the first so many, or those named one by one."""
    import torch

    return len(ids) if (ids == np.arange(len(ids))).all() else torch.from_numpy(ids)


def chosen(head: "Tensor", rows: "Tensor | int") -> "Tensor":
    """Rows of a head [V, D]; a head that has no others is given as it is."""
    if isinstance(rows, int):
        return head if rows == len(head) else head[:rows]
    return head[rows.to(head.device)]


@dataclass(frozen=True)
class View:
    """guide: brings the teacher to the rows; objective: learns from it; known: [V] bool, the student's ids
    that may be in an answer; rooms: for each source the most tokens that the teacher can read after each
    prompt, 0 where its states were not kept."""

    guide: "Guide"
    objective: NextTokens
    known: np.ndarray
    rooms: list[np.ndarray]


def live(
    config: Any,
    context: Context,
    words: "Tokenizer",
    net: "CausalLM",
    teacher: Artifact,
    data: dict[str, Artifact],
    asked: "dict[str, Asked]",
) -> View:
    """The view of a teacher that is there; the arguments are the stage's (stages/distill.py)."""
    import torch

    from endonym.eval.needles import longest
    from endonym.model import hf
    from endonym.model.device import place
    from endonym.rollouts import guides
    from endonym.rollouts.teacher import Teacher
    from endonym.rollouts.vocabularies import same, shared
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.parallel import ranks
    from endonym.train.precision import precision_of

    theirs, device = Tokenizer.load(teacher.path), place(context)
    spans = config.alignment == "spans"
    names = shared(words, theirs) if spans else same(words, theirs)
    exact = precision_of(config.precision, device, net.config.hidden_size) == torch.float32
    dtype = torch.bfloat16 if device.type == "cuda" and not exact else torch.float32
    master = hf.load(teacher.path, dtype=dtype)
    names = names.within(len(net.head), len(master.head))
    here = ranks(context)
    table, back = names.table(_size(words, net.head)), names.back(_size(theirs, master.head))
    is_plain = spans or bool((names.student == names.teacher).all())
    numbers = None if is_plain else torch.from_numpy(table.clip(0))
    head, cap, limit = master.head.detach().to(device), master.cap, longest(master.config)
    one = Teacher(master, device, numbers, in_turn=context.offload, ranks=here)
    prompts = asked
    if spans or config.teacher_prompt_prefix:
        prompts = asked_stores(
            data, theirs if spans else words, context,
            folder="teacher", prefix=config.teacher_prompt_prefix, template=config.template,
            every=config.turns == "every",
        )  # fmt: skip
    given = (one, list(prompts.values()), theirs.stop_ids, table, back)
    rooms = [limit - each.prompt_lengths for each in prompts.values()]
    if spans:
        pairs = set(zip(names.student.tolist(), names.teacher.tolist()))
        guide = guides.Spanning(
            *given, length=limit, words=words, theirs=theirs, shared=pairs, head=head, cap=cap,
            temperature=config.temperature, template=config.template,
        )  # fmt: skip
        settings = _settings(config, "beta", "temperature", "cross_entropy")
        objective = Spanning(head, names, cap, config.balance, **settings)
        known = np.zeros(len(table), bool)
        known[list(words.backend.get_vocab(with_added_tokens=True).values())] = True
        return View(guide, objective, known, rooms)
    check_prompts(prompts, table, words)
    if config.teacher_prompt_prefix:
        guide = guides.Aside(*given, length=limit)
    else:
        guide = (guides.InTurn if context.offload else guides.Beside)(*given)
    return View(guide, _whole(config, names, head, cap, one), table >= 0, rooms)


def kept(
    config: Any,
    context: Context,
    words: "Tokenizer",
    net: "CausalLM",
    states: Artifact,
    asked: "dict[str, Asked]",
) -> View:
    """The view of a teacher of which its states are all there is."""
    from endonym.model.device import place
    from endonym.rollouts import guides
    from endonym.rollouts.states import States
    from endonym.rollouts.vocabularies import same
    from endonym.tokenizer.folder import Tokenizer

    cache = States(states.path)
    head = cache.head().to(place(context))
    names = same(words, Tokenizer.load(states.path)).within(len(net.head), len(head))
    table = names.table(_size(words, net.head))
    check_prompts(asked, table, words)
    objective = _whole(config, names, head, cache.cap, None)
    rooms = [_kept_rooms(cache, one, table) for one in asked.values()]
    return View(guides.Cached(cache, table), objective, table >= 0, rooms)


def _kept_rooms(cache: "States", one: "Asked", table: np.ndarray) -> np.ndarray:
    """Tokens of each answer that is in the cache, 0 of those that were too long for it; DataError where
    it has never seen one."""
    found = np.zeros(len(one), np.int64)
    for number in range(len(one)):
        prompt, answer = table[one.prompt(number)], table[one.answer(number)]
        if cache.has(prompt, answer):
            found[number] = len(answer)
    return found


def _whole(
    config: Any, names: "Names", head: "Tensor", cap: float | None, teacher: "Teacher | None"
) -> Distilling:
    settings = ("beta", "temperature", "top_k", "tail", "cross_entropy")
    theirs = chosen(head, rows_of(names.teacher))
    return Distilling(
        theirs, rows_of(names.student), cap, teacher, config.balance, **_settings(config, *settings)
    )


def _settings(config: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _size(words: "Tokenizer", head: "Tensor") -> int:
    """Ids that there may be: of the tokenizer, or of the embedding where that is padded."""
    return max(words.vocab_size, len(head))


def check_prompts(prompts: "dict[str, Asked]", table: np.ndarray, words: "Tokenizer") -> None:
    """DataError for a prompt with a token that the teacher has no name for."""
    for label, one in prompts.items():
        used = np.unique(one.ids)
        lost = used[table[used] < 0]
        if len(lost):
            token = words.backend.id_to_token(int(lost[0]))
            raise DataError(
                "the data holds tokens that the teacher does not have",
                where=f"data.{label}", wanted="tokens of both", got=f"{len(lost)}, such as {token!r}",
                do="use a chat template without them, or a teacher that has them",
            )  # fmt: skip
