"""The questions of one exam put to a model: closed book, and with a library to look things up in."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from endonym.eval.table import Figure

if TYPE_CHECKING:
    from endonym.core.context import Context
    from endonym.engine.backends import Backend
    from endonym.eval.run import Reply
    from endonym.stages.evaluate import EvaluateConfig
    from endonym.tasks.base import Item


class Exam:
    """One exam's answerable items, what was measured of them, and the replies.

    figures: by key, see stages/evaluate.py; values: what each item gave of them (eval/paired.py);
    greedy: (item, reply) pairs of the closed book
    """

    def __init__(
        self,
        net: Any,
        backend: "Backend",
        words: Any,
        label: str,
        items: "Sequence[Item]",
        config: "EvaluateConfig",
        context: "Context",
    ):
        self.net, self.backend, self.words = net, backend, words
        self.label, self.items = label, list(items)
        self.config, self.context = config, context
        self.straight = [i for i in self.items if i.kind == "answer" and not switched(i)]
        self.figures: dict[str, Figure] = {}
        self.values: dict[str, list[Any]] = {}
        self.greedy: list[tuple[Item, Reply]] = []

    # --- closed book ----------------------------------------------------------------------------

    def ask(self, file: TextIO) -> None:
        """Greedy replies, and sampled ones where a temperature is set; all are written to the file."""
        config, label = self.config, self.label
        greedy = self._replies("", 0.0, 0, file)
        self.greedy = list(zip(self.items, greedy))
        self._kept(f"language_{label}", greedy)
        self._share(
            f"answers_{label}",
            [r.score for i, r in self.greedy if i.kind == "answer" and not switched(i)],
        )
        self._share(f"rules_{label}", [r.score for i, r in self.greedy if i.kind == "constraint"])
        self._share(f"asked_{label}", [r.score for i, r in self.greedy if i.kind == "choice"])
        if "contains" in config.also:
            self._share(f"contains_{label}", self._holding([greedy]))
        if config.sampled_at:
            tries = [
                self._replies("_sampled", config.sampled_at, number, file)
                for number in range(config.tries)
            ]
            self._kept(f"language_{label}_sampled", [reply for one in tries for reply in one])
            self._sampled(tries)

    def _replies(self, suffix: str, temperature: float, number: int, file: TextIO) -> "list[Reply]":
        from endonym.engine.sampler import Sampling
        from endonym.eval.run import answers

        name, title = f"answers_{self.label}{suffix}", f"{self.label} T={temperature:g}"
        if number:
            name, title = f"{name}_{number}", f"{title} {number + 1}"
        sampling = Sampling(
            temperature=temperature,
            max_tokens=self.config.max_tokens,
            seed=self.config.seed + number,
        )
        with_ids = bool(suffix) and "foreign" in self.config.also
        replies = answers(
            self.backend, self.words, self.items, sampling, self.context,
            name=name, title=title, with_ids=with_ids,
        )  # fmt: skip
        for reply in replies:
            row = {"exam": self.label, "temperature": temperature, **vars(reply)}
            del row["ids"]
            if number:
                row["try"] = number
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return replies

    def _sampled(self, tries: "list[list[Reply]]") -> None:
        from endonym.eval.intervals import bootstrap

        config, label = self.config, self.label
        places = [n for n, i in enumerate(self.items) if i.kind == "answer" and not switched(i)]
        if places and ("sampled" in config.also or config.tries > 1):
            scores = [[one[n].score for one in tries] for n in places]
            if config.tries == 1:
                self._share(f"answers_{label}_sampled", [score for (score,) in scores])
            else:
                means = [sum(each) / len(each) for each in scores]
                found = bootstrap(means, config.seed)
                self.figures[f"answers_{label}_sampled"] = _figure(found)
                self.values[f"answers_{label}_sampled"] = means
                self._share(f"pass{config.tries}_{label}", [max(each) for each in scores])
        if places and "contains" in config.also and "sampled" in config.also:
            self._share(f"contains_{label}_sampled", self._holding(tries))
        if "foreign" in config.also:
            self._foreign(tries)

    def _holding(self, tries: "list[list[Reply]]") -> list[float]:
        """Of each straight answer and try, whether the gold stands in the reply."""
        from endonym.lang.script import after_thinking
        from endonym.rewards.contains import holds_string

        return [
            float(holds_string(after_thinking(one[n].text), item.answer))
            for one in tries
            for n, item in enumerate(self.items)
            if item.kind == "answer" and not switched(item)
        ]

    def _foreign(self, tries: "list[list[Reply]]") -> None:
        """foreign_L and mixed_L over the sampled replies to items that ask for a language."""
        from endonym.eval.foreign import foreign_mass, is_mixed
        from endonym.eval.intervals import ratio

        asked = [
            (item, reply) for one in tries for item, reply in zip(self.items, one) if item.language
        ]
        by_language: dict[str, list[int]] = {}
        for place, (item, reply) in enumerate(asked):
            if reply.ids:
                by_language.setdefault(item.language, []).append(place)
        # A reply without a token has no mass and no letter; it keeps its place beside other models' replies.
        sums: list[tuple[float, int]] = [(0.0, 0)] * len(asked)
        mixed: list[tuple[float, int]] = [(0.0, 0)] * len(asked)
        for language, places in sorted(by_language.items()):
            pairs = [asked[place] for place in places]
            prompts = [self.words.encode_prompt(item.messages) for item, _ in pairs]
            masses = foreign_mass(
                self.net, self.words, prompts, [reply.ids for _, reply in pairs], language,
                self.context,
            )  # fmt: skip
            for place, mass, (_, reply) in zip(places, masses, pairs):
                sums[place], mixed[place] = mass, (float(is_mixed(reply.text, language)), 1)
        told = [one for one in sums if one[1]]
        if told:
            key = f"foreign_{self.label}"
            self.figures[key] = _figure(ratio(*zip(*told), self.config.seed))
            self._share(f"mixed_{self.label}", [hit for hit, counts in mixed if counts])
            self.values |= {key: sums, f"mixed_{self.label}": mixed}

    # --- with a library -------------------------------------------------------------------------

    def look_up(self, library: Any, file: TextIO) -> None:
        """The straight answers once more, with the library's tools, greedy and, where they are asked
        for, sampled; all are written to the file."""
        config, label = self.config, self.label
        if not self.straight:
            return
        greedy = self._episodes(library, "", 0.0, 1, file)
        self._share(f"agent_{label}", [reply.score for reply in greedy])
        self._share(f"calls_{label}", [float(reply.calls > 0) for reply in greedy])
        if config.sampled_at and ("sampled" in config.also or config.tries > 1):
            from endonym.eval.intervals import bootstrap

            drawn = self._episodes(library, "_sampled", config.sampled_at, config.tries, file)
            scores: dict[str, list[float]] = {}
            for reply in drawn:
                scores.setdefault(reply.item, []).append(reply.score)
            means = [sum(each) / len(each) for each in scores.values()]
            self.figures[f"agent_{label}_sampled"] = _figure(bootstrap(means, config.seed))
            self.values[f"agent_{label}_sampled"] = means
            if config.tries > 1:
                self._share(f"agentpass{config.tries}_{label}", [*map(max, scores.values())])

    def _episodes(
        self, library: Any, suffix: str, temperature: float, samples: int, file: TextIO
    ) -> list[Any]:
        from endonym.engine.sampler import Sampling
        from endonym.eval.agentic import agentic_answers

        sampling = Sampling(
            temperature=temperature, max_tokens=self.config.max_tokens, seed=self.config.seed
        )
        replies = agentic_answers(
            self.backend, self.words, self.straight, library, sampling, self.context,
            samples=samples,
            max_turns=self.config.agent.max_turns,
            max_tokens=self.config.agent.max_tokens,
            name=f"agentic_{self.label}{suffix}",
            title=f"{self.label} with the library, T={temperature:g}",
        )  # fmt: skip
        for reply in replies:
            row = {"exam": self.label, "temperature": temperature, **vars(reply)}
            row.pop("ids", None)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return replies

    # --- figures --------------------------------------------------------------------------------

    def _share(self, key: str, hits: "Sequence[bool | float]") -> None:
        if hits:
            self.figures[key] = share(hits)
            self.values[key] = [float(hit) for hit in hits]

    def _kept(self, key: str, replies: "Sequence[Reply]") -> None:
        self._share(key, [r.in_language for r in replies if r.in_language is not None])


def share(hits: "Sequence[bool | float]") -> Figure:
    """A share with Wilson's interval."""
    from endonym.eval.intervals import wilson

    return _figure(wilson(sum(hits), len(hits)))


def _figure(found: Any) -> Figure:
    return Figure(found.value, found.low, found.high, found.n)


def switched(item: "Item") -> bool:
    """Prompts that mix languages on purpose measure the language kept, not the answer."""
    return item.source.endswith(": switch")
