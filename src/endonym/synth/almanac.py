"""Facts of lang/locale.py written as documents, questions, choices, constraints and switched prompts.

    fact ("numbers", "48", "สี่สิบแปด")
      -> document    "เลข 48 เขียนเป็นตัวหนังสือว่า สี่สิบแปด"      1 to 6 such sentences a document
      -> question    "48 อ่านว่าอะไร"                            -> "สี่สิบแปด"
      -> choice      "จำนวน 48 อ่านว่า " + one of 4 continuations
      -> constraint  "48 อ่านว่าอะไร ให้ลงท้ายคำตอบด้วยคำว่า “ครับ”"  -> a reply that programs check
      -> switch      "Please answer in Thai: 48 อ่านว่าอะไร"       -> a reply that must be Thai

Sentences are data: lang/packs/<language>/almanac.toml. A language without such a file gets plain
lists made of CLDR's own words ("VN = Việt Nam") and English instructions around them; skills whose
lists would not be understood (which month is "4"?) are left out of it.

What is held out (split_statement says it with figures). Rule skills: the held-out keys, and their
values, stand in no training document and in no training item. Recall skills: all facts are in the
training documents and the questions are split by fact; each fact keeps one of its sentences for the
test documents, so that held-out text is new as text though its names are not.

Everything is a function of (language, split, seed, amount and the other arguments).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from random import Random

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.lang.locale import (
    DEFAULT_RANGES,
    Fact,
    Ranges,
    facts,
    kind_of,
    skills,
    stable_hash,
)
from endonym.lang.pack import pack, read_packed
from endonym.lang.script import in_language
from endonym.synth.phrases import Phrases, constraint, phrases_of
from endonym.tasks.base import Item, task_for
from endonym.tasks.choice import show

FORMS = ("question", "choice", "constraint", "switch")
SPLITS = ("train", "test")
LICENCE = "CC0-1.0"  # of the sentences; facts are CLDR's (Unicode-3.0), pythainlp's (Apache-2.0)
NUM_OPTIONS = 4
NEIGHBOURS = 12  # wrong options for rule skills are drawn from so many nearest facts


def tasks_of(language: str) -> list[str]:
    """The skills that the almanac writes about by default.

    Not weekday_of: the weekday of a date is a calculation that a small model cannot learn; ask for
    it by name.
    """
    own = skills(language)
    if not has_sentences(language):
        own = [skill for skill in own if skill not in ("months", "weekdays")]
    return [skill for skill in own if skill != "weekday_of"]


def has_sentences(language: str) -> bool:
    """Whether sentences were written for a language, or it gets plain lists."""
    return bool(read_packed(language, "almanac.toml"))


def documents(
    language: str,
    *,
    split: str = "train",
    seed: int = 0,
    amount: int,
    tasks: Sequence[str] | None = None,
    ranges: Ranges = DEFAULT_RANGES,
    sentences: tuple[int, int] = (1, 6),
) -> Iterator[Document]:
    """`amount` documents of `sentences` (least, most) facts each; short ones are more frequent.

    A skill is drawn in proportion to the square root of its number of facts, so that the week is
    not told as often as a thousand numbers are. Skills mix within a document.
    """
    chosen = _tasks(language, tasks)
    pools = [pool for skill in chosen if (pool := _sentences(language, skill, split, ranges))]
    if not pools:
        raise DataError(f"no facts to write about in {language!r}", got=f"tasks = {chosen}")
    weights = list(accumulate(len(pool) ** 0.5 for pool in pools))
    least, most = sentences
    lengths = range(least, most + 1)
    length_weights = list(accumulate(most + 1 - length for length in lengths))
    join = pack(language).sentence_join
    random = Random(f"almanac documents {language} {split} {seed}")
    for number in range(amount):
        (length,) = random.choices(lengths, cum_weights=length_weights)
        drawn = random.choices(pools, cum_weights=weights, k=length)
        text = join.join(random.choice(pool) for pool in drawn)
        name = f"almanac/{language}/{split}/{seed}/{number}"
        yield Document(name, text, language, "endonym almanac", LICENCE)


def items(
    language: str,
    split: str,
    *,
    seed: int = 0,
    amount: int,
    tasks: Sequence[str] | None = None,
    forms: Sequence[str] = FORMS,
    ranges: Ranges = DEFAULT_RANGES,
) -> list[Item]:
    """Up to `amount` different items, shared evenly among the forms and skills that have any.

    Fewer come back only where there are no more. Item.source names the form.
    """
    for form in forms:
        if form not in FORMS:
            raise DataError(f"there is no form {form!r}", do=nearest(form, list(FORMS)))
    pools = []
    for form in forms:
        for skill in _tasks(language, tasks):
            known = _known(language, skill, split, ranges)
            random = Random(f"almanac {form} {skill} {language} {split} {seed}")
            candidates = [
                (fact, n) for fact in known for n in range(_variants(language, form, fact))
            ]
            random.shuffle(candidates)
            pools.append(_draw(language, split, form, known, candidates, random))
    made: list[Item] = []
    while pools and len(made) < amount:
        alive = []
        for pool in pools:
            item = next(pool, None)
            if item is not None:
                made.append(item)
                alive.append(pool)
        pools = alive
    return made[:amount]


def conversations(
    language: str,
    *,
    seed: int = 0,
    amount: int,
    tasks: Sequence[str] | None = None,
    forms: Sequence[str] = FORMS,
    ranges: Ranges = DEFAULT_RANGES,
) -> Iterator[Conversation]:
    """Training items as conversations: the prompt, then the target of the item's task."""
    for item in items(
        language, "train", seed=seed, amount=amount, tasks=tasks, forms=forms, ranges=ranges
    ):
        said = {"role": "assistant", "content": task_for(item.kind).target(item)}
        yield Conversation(
            item.id, [*item.messages, said], item.language, item.source, item.licence, item.task
        )


def asked(
    language: str,
    *,
    seed: int = 0,
    amount: int,
    tasks: Sequence[str] | None = None,
    forms: Sequence[str] = FORMS,
) -> Iterator[Document]:
    """Such conversations as plain text, two lines each: what a base model has read of questions and
    answers before anybody taught it to converse."""
    for row in conversations(language, seed=seed, amount=amount, tasks=tasks, forms=forms):
        text = "\n".join(message["content"] for message in row.messages)
        yield Document(f"{row.id}/asked", text, language, row.source, row.licence)


def split_statement(language: str, ranges: Ranges = DEFAULT_RANGES) -> list[str]:
    """What is held out and how, in sentences for a report."""
    by_kind: dict[str, list[str]] = {"rule": [], "recall": []}
    for skill in tasks_of(language):
        known = facts(language, skill, ranges)
        held = sum(fact.held_out for fact in known)
        by_kind[kind_of(skill)].append(f"{skill} {held} of {len(known)}")
    name = pack(language).name
    return [
        f"{name}, rule skills ({', '.join(by_kind['rule'])} facts held out): held-out facts appear "
        "in no training document and in no training question; one hash of the number or year "
        "decides for all rule skills together; 0-20, whole tens and whole hundreds are always for "
        "training; the words of a held-out number below 100 can stand inside those of a longer one.",
        f"{name}, recall skills ({', '.join(by_kind['recall'])} facts held out): every fact appears "
        "in the training documents; the held-out facts are asked about in no training question, so "
        "the score is of reading, not of having been asked.",
        f"{name}, held-out text: rule facts that are held out, and recall facts in a sentence that "
        "was kept out of the training documents.",
    ]


def _tasks(language: str, tasks: Sequence[str] | None) -> list[str]:
    """The default skills or the named ones, each known to the language."""
    chosen = list(tasks) if tasks is not None else tasks_of(language)
    for skill in chosen:
        facts(language, skill)  # raises for a skill that does not exist or that is missing
        if not phrases_of(language, skill).document:
            raise DataError(f"no sentences are written for {skill!r} in {language!r}")
    return chosen


def _known(language: str, skill: str, split: str, ranges: Ranges) -> list[Fact]:
    """The facts that items of a split may ask about."""
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}", do=nearest(split, list(SPLITS)))
    return [f for f in facts(language, skill, ranges) if f.held_out == (split == "test")]


@lru_cache(maxsize=256)
def _sentences(language: str, skill: str, split: str, ranges: Ranges) -> list[str]:
    """Every sentence that documents of a split may hold for one skill."""
    forms = phrases_of(language, skill).document
    if kind_of(skill) == "rule":
        known = _known(language, skill, split, ranges)
        return [form.format(key=f.key, value=f.value) for f in known for form in forms]
    texts = []
    for fact in facts(language, skill, ranges):
        kept = stable_hash(f"sentence {skill} {fact.key}") % len(forms)
        for n, form in enumerate(forms):
            if (n == kept) == (split == "test"):
                texts.append(form.format(key=fact.key, value=fact.value))
    return texts


@lru_cache(maxsize=256)
def _values(language: str, skill: str) -> list[str]:
    """The different values of a skill, in a fixed order."""
    return sorted({fact.value for fact in facts(language, skill)})


def _variants(language: str, form: str, fact: Fact) -> int:
    """How many different items of a form there are for one fact."""
    phrases = phrases_of(language, fact.skill)
    if form == "question":
        return len(phrases.question)
    if form == "choice":
        return 1
    if form == "constraint":
        return len(phrases.constraints)
    if not in_language(fact.value, language):  # a bare year is in no language
        return 0
    return len(phrases.switch) + len(phrases.mixed)


def _draw(
    language: str,
    split: str,
    form: str,
    known: list[Fact],
    candidates: list[tuple[Fact, int]],
    random: Random,
) -> Iterator[Item]:
    """The candidates as items, one after another; those that cannot be made are passed over."""
    makers = {"question": _question, "choice": _choice, "constraint": _constraint}
    for fact, n in candidates:
        phrases = phrases_of(language, fact.skill)
        fields = makers.get(form, _switch)(language, phrases, fact, n, known, random)
        if fields:
            prompt = fields.pop("prompt")
            item = Item(
                id=f"almanac/{language}/{form}/{fact.skill}/{fact.key}/{n}",
                task=fact.skill,
                messages=[{"role": "user", "content": prompt}],
                split=split,
                source=f"endonym almanac: {form}",
                licence=LICENCE,
                **fields,
            )
            # A name can break a rule that its sentence should obey (a full stop inside it).
            task = task_for(item.kind)
            if item.kind != "constraint" or task.check(item, task.target(item)).score == 1.0:
                yield item


def _reply_language(value: str, language: str) -> str:
    return language if in_language(value, language) else ""


def _question(
    language: str, phrases: Phrases, fact: Fact, n: int, known: list[Fact], random: Random
) -> dict:
    return {
        "kind": "answer",
        "prompt": phrases.question[n].format(key=fact.key),
        "answer": fact.value,
        "language": _reply_language(fact.value, language),
    }


def _choice(
    language: str, phrases: Phrases, fact: Fact, n: int, known: list[Fact], random: Random
) -> dict | None:
    """A question with four options, and the cloze sentence for scoring by likelihood."""
    if kind_of(fact.skill) == "rule":
        at = bisect_left(known, fact.likeness, key=lambda other: other.likeness)
        near = known[max(0, at - NEIGHBOURS // 2) : at + NEIGHBOURS // 2 + 1]
        others = sorted({other.value for other in near} - {fact.value})
    else:  # names are in the training documents anyway, so wrong ones may come from all facts
        others = [value for value in _values(language, fact.skill) if value != fact.value]
    if len(others) < NUM_OPTIONS - 1:
        return None
    options = random.sample(others, NUM_OPTIONS - 1)
    index = random.randrange(NUM_OPTIONS)
    options.insert(index, fact.value)
    question = random.choice(phrases.question).format(key=fact.key)
    return {
        "kind": "choice",
        "prompt": pack(language).choice.prompt.format(question=question, options=show(options)),
        "answer": str(index),
        "choices": options,
        "context": random.choice(phrases.clozes).format(key=fact.key),
        "language": language,
    }


def _constraint(
    language: str, phrases: Phrases, fact: Fact, n: int, known: list[Fact], random: Random
) -> dict | None:
    rule = phrases.constraints[n]
    if rule.type == "language" and not in_language(fact.value, language):
        return None
    # A few more than needed, for some may have the same value.
    drawn = random.sample(known, min(len(known), rule.facts + NEIGHBOURS))
    others = [other for other in drawn if other.value != fact.value][: rule.facts - 1]
    if len(others) < rule.facts - 1:
        return None
    asked = [fact, *others]
    prompt, reply, checks = constraint(language, phrases, rule, asked, random)
    return {
        "kind": "constraint",
        "prompt": prompt,
        "answer": reply,
        "checks": checks,
        "language": _reply_language(reply, language),
    }


def _switch(
    language: str, phrases: Phrases, fact: Fact, n: int, known: list[Fact], random: Random
) -> dict:
    """A prompt that mixes languages; the reply must be in `language`."""
    if n < len(phrases.mixed):
        prompt = phrases.mixed[n].format(key=fact.key)
    else:
        prompt = phrases.switch[n - len(phrases.mixed)].format(
            question=random.choice(phrases.question).format(key=fact.key),
            english=random.choice(phrases.english).format(key=fact.key),
            name=pack(language).name,
        )
    return {"kind": "answer", "prompt": prompt, "answer": fact.value, "language": language}
