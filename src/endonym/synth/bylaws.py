"""An invented statute book: towns, what each forbids, where, and the fine; text, questions, answers.

    town 19-3 (ระฆัง, ฟ้า) of book 0 -> act 4 (จุดประทัด) at place 5 (ที่สถานีรถไฟ), fine 15 x 50
      -> section    "ในเขตเมืองระฆังฟ้าห้ามจุดประทัดที่สถานีรถไฟ ผู้ฝ่าฝืนต้องระวางโทษปรับ 750 บาท"
      -> document   the section, or one of five other ways to say it
      -> question   "เมืองระฆังฟ้าห้ามทำอะไร"  -> "ห้ามจุดประทัดที่สถานีรถไฟ"   (act)
                    "เมืองระฆังฟ้าปรับผู้ฝ่าฝืนเท่าไร" -> "ปรับ 750 บาท"  (fine)

A town's name is a thing and a quality, 24 x 24; its act one of 20 at one of 20 places, so that one
guess in 400 is right; its fine one of 19. The words are data, lang/packs/<language>/bylaws.toml, in
one order in all languages: book 0 says the same in each of them. Another seed is another book, with
other groups and other bylaws for the same names. Released with this project (CC0-1.0). Any likeness
to a real town is chance.

A language without such a file gets the English book, and the rows say that they are English.

Towns fall into groups by a hash of book and town:

    old       80   in the text of continued pre-training, questions and answers too, and asked about in
                   fine-tuning: what is known
    read      24   in that text as passages alone, asked about nowhere: whether a model can answer from
                   what it has read, the skill that knowledge text builds on
    asked     24   in the knowledge text, and asked about in reinforcement
    text      24   in the knowledge text alone: what a model knows of these, it has from there
    never     24   in neither: what it "knows" of these is leaked, or luck
    practice 400   only in the tool answers of search episodes (synth/searches.py), where each edition
                   gives them other bylaws, so that reading is practised and nothing can be remembered

Test questions are worded as no training question is. A share of the answers to imitate ends
politely, so that politeness is in the model's reach and not yet its habit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import Field

from endonym.core.config import Config, nearest
from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.data.sections import Section
from endonym.lang.locale import stable_hash
from endonym.lang.normalize import compose
from endonym.lang.pack import read_packed
from endonym.tasks.base import Item

LICENCE = "CC0-1.0"
SOURCE = "endonym bylaws"
GROUPS = {"old": 80, "read": 24, "asked": 24, "text": 24, "never": 24, "practice": 400}
TASKS = ("act", "fine")
FINES = 19
POLITE = 0.3
"""Share of the answers to imitate that end politely, where the language has a way to."""


class Questions(Config):
    train: list[str]
    test: list[str]


class Words(Config):
    """A language's bylaws.toml."""

    town: str
    act: str
    fine: str
    step: int
    book: str
    query: str
    """What a search for a town's bylaw looks for."""
    polite: list[str]
    things: list[str] = Field(min_length=24, max_length=24)
    qualities: list[str] = Field(min_length=24, max_length=24)
    acts: list[str] = Field(min_length=20, max_length=20)
    places: list[str] = Field(min_length=20, max_length=20)
    section: str
    passages: list[str]
    act_questions: Questions
    fine_questions: Questions

    def questions(self, task: str, split: str) -> list[str]:
        asked = self.act_questions if task == "act" else self.fine_questions
        return asked.test if split == "test" else asked.train


@dataclass(frozen=True)
class Bylaw:
    """What a town forbids, in a language's words."""

    key: str
    """<seed>/<thing>-<quality>, and /<edition> of a later edition."""
    group: str
    town: str
    act: str
    fine: str

    def answer(self, task: str) -> str:
        return self.act if task == "act" else self.fine


@lru_cache(maxsize=64)
def written_in(language: str) -> str:
    """The language in which a language's statute book is written: English where it has none. Rows say
    so in their `language`."""
    return language if read_packed(language, "bylaws.toml") else "en"


def bylaws(
    language: str, groups: Sequence[str] = (), *, seed: int = 0, edition: int = 0
) -> list[Bylaw]:
    """The bylaws of these groups (none named: of all), in the order of the book.

    edition: of the groups that are practised alone; all others have one.
    """
    for group in groups:
        if group not in GROUPS:
            raise DataError(
                f"there is no group of towns {group!r}", do=nearest(group, list(GROUPS))
            )
    words = words_of(language)
    found = []
    for (thing, quality), group in _groups(seed).items():
        if groups and group not in groups:
            continue
        key = f"{seed}/{thing}-{quality}"
        key += f"/{edition}" if edition and group == "practice" else ""
        value = stable_hash(f"bylaw {key}")
        act, place = words.acts[value % 20], words.places[value // 20 % 20]
        amount = (value // 400 % FINES + 1) * words.step
        found.append(
            Bylaw(
                key=key,
                group=group,
                town=words.town.format(thing=words.things[thing], quality=words.qualities[quality]),
                act=words.act.format(act=act, place=place),
                fine=words.fine.format(amount=amount),
            )
        )
    return found


def sections(
    language: str, groups: Sequence[str] = (), *, seed: int = 0, edition: int = 0
) -> list[Section]:
    """The bylaws as sections: each town's book has one, number 1."""
    return [
        section(language, bylaw) for bylaw in bylaws(language, groups, seed=seed, edition=edition)
    ]


def section(language: str, bylaw: Bylaw) -> Section:
    words = words_of(language)
    return Section(
        id=f"bylaws/{language}/{bylaw.key}",
        book=words.book.format(town=bylaw.town),
        number="1",
        title="",
        text=words.section.format(town=bylaw.town, act=bylaw.act, fine=bylaw.fine),
        language=written_in(language),
        source=SOURCE,
        licence=LICENCE,
    )


def documents(language: str, groups: Sequence[str] = (), *, seed: int = 0) -> Iterator[Document]:
    """Each bylaw in every way in which the language's pack says it, the section's first; after these,
    of the old towns, every training question with its answer.

    Who has seen questions answered beside the text can answer others from text alone; who sees them
    only after it learns the answers by heart (Allen-Zhu and Li 2023, arXiv:2309.14316).
    """
    words, code = words_of(language), written_in(language)
    for number, passage in enumerate([words.section, *words.passages]):
        for bylaw in bylaws(language, groups, seed=seed):
            text = passage.format(town=bylaw.town, act=bylaw.act, fine=bylaw.fine)
            name = f"bylaws/{language}/{bylaw.key}/{number}"
            yield Document(name, text, code, SOURCE, LICENCE)
    if not groups or "old" in groups:
        for item in items(language, "train", ["old"], seed=seed):
            text = f"{item.messages[0]['content']}\n{item.answer}"
            yield Document(f"{item.id}/answered", text, code, SOURCE, LICENCE)


def items(
    language: str,
    split: str,
    groups: Sequence[str] = (),
    *,
    seed: int = 0,
    tasks: Sequence[str] = TASKS,
) -> list[Item]:
    """Every question of a split ("train" | "test") about every town of these groups.

    One way of asking after another, so that the first so many items ask about all towns.
    """
    for task in tasks:
        if task not in TASKS:
            raise DataError(f"the bylaws have no task {task!r}", do=nearest(task, list(TASKS)))
    words, known = words_of(language), bylaws(language, groups, seed=seed)
    ways = max(len(words.questions(task, split)) for task in tasks)
    return [
        Item(
            id=f"bylaws/{language}/{bylaw.key}/{task}/{split}/{way}",
            kind="answer",
            task=f"bylaws_{task}",
            language=written_in(language),
            messages=[{"role": "user", "content": question.format(town=bylaw.town)}],
            answer=bylaw.answer(task),
            split=split,
            source=SOURCE,
            licence=LICENCE,
        )
        for way in range(ways)
        for task in tasks
        for question in words.questions(task, split)[way : way + 1]
        for bylaw in known
    ]


def conversations(
    language: str, groups: Sequence[str] = (), *, seed: int = 0, tasks: Sequence[str] = TASKS
) -> Iterator[Conversation]:
    """The training questions with their answers, the share POLITE of which end politely."""
    for item in items(language, "train", groups, seed=seed, tasks=tasks):
        said = {"role": "assistant", "content": politely(language, item.answer, item.id)}
        yield Conversation(
            item.id, [*item.messages, said], item.language, SOURCE, LICENCE, item.task
        )


def politely(language: str, answer: str, name: str) -> str:
    """The answer, with a polite ending where a hash of `name` falls into the share POLITE."""
    endings = words_of(language).polite
    value = stable_hash(f"polite {name}")
    if not endings or value % 1000 >= 1000 * POLITE:
        return answer
    return answer + endings[value // 1000 % len(endings)]


def split_statement(language: str) -> str:
    """What is held out and how, in a sentence for a report."""
    counts = ", ".join(f"{group} {count}" for group, count in GROUPS.items())
    written = "" if written_in(language) == language else ", written in English"
    return (
        f"bylaws ({language}{written}): an invented statute book, towns by group: {counts}. Of all groups "
        "the test questions are worded as no training question is; what a group's towns may appear in "
        "is said by its name (synth/bylaws.py)."
    )


@lru_cache(maxsize=64)
def words_of(language: str) -> Words:
    """The words and sentences of a language's book, in NFC."""
    code = written_in(language)
    found = read_packed(code, "bylaws.toml")
    return Words.read(_composed(found), where=f"lang/packs/{code}/bylaws.toml")


def _composed(value):
    if isinstance(value, str):
        return compose(value)
    if isinstance(value, dict):
        return {key: _composed(each) for key, each in value.items()}
    return [_composed(each) for each in value] if isinstance(value, list) else value


@lru_cache(maxsize=64)
def _groups(seed: int) -> dict[tuple[int, int], str]:
    """The group of each town of a book; towns in the order of their hashes."""
    towns = [(thing, quality) for thing in range(24) for quality in range(24)]
    towns.sort(key=lambda town: stable_hash(f"town {seed}/{town[0]}-{town[1]}"))
    named = [group for group, count in GROUPS.items() for _ in range(count)]
    return dict(zip(towns, named, strict=True))
