"""What a phase draws from: the rows that its thresholds leave of each store, and the share of each."""

import hashlib
from dataclasses import dataclass

import numpy as np

from endonym.core.config import nearest
from endonym.core.errors import DataError, RecipeError
from endonym.data import sampling
from endonym.data.packed import Packed
from endonym.data.phases import Phase, Sampling
from endonym.data.store import TokenStore
from endonym.data.threshold import passing


class Languages:
    """The languages of all stores under one numbering: names, and the codes of each store."""

    def __init__(self, stores: dict[str, TokenStore]):
        places: dict[str, int] = {}
        self.codes = {}
        for label, store in stores.items():
            labels = store.languages
            table = [places.setdefault(name, len(places)) for name in labels.names]
            self.codes[label] = np.array(table, np.int64)[labels.codes]
        self.names = list(places)

    def counts(self, masks: dict[str, np.ndarray | None]) -> dict[str, dict[str, int]]:
        """How many sequences of each language the masks let through."""
        size = len(self.names)
        whole = sum(np.bincount(codes, minlength=size) for codes in self.codes.values())
        kept = sum(
            np.bincount(codes if masks[label] is None else codes[masks[label]], minlength=size)
            for label, codes in self.codes.items()
        )
        return {
            name: {"sequences": int(whole[n]), "kept": int(kept[n])}
            for n, name in enumerate(self.names)
        }


@dataclass
class Maker:
    """Makes the rows of a phase's stores; those made before, for any phase, are in `known`."""

    phase: Phase
    stores: dict[str, TokenStore]
    row_length: int
    masks: dict[str, np.ndarray | None]
    known: dict[tuple, Packed]
    where: str

    def __call__(self, label: str, name: str, also: np.ndarray | None = None) -> Packed:
        """The rows of a store, called `name`, of the sequences that the thresholds and `also` let through."""
        mask = self.masks[label]
        if also is not None:
            mask = also if mask is None else mask & also
        digest = None if mask is None else hashlib.sha256(np.packbits(mask)).hexdigest()
        settings = {"packed": self.phase.packed, "never_truncate": self.phase.never_truncate}
        key = (name, self.row_length, *settings.values(), digest)
        if key not in self.known:
            store = self.stores[label]
            try:
                self.known[key] = Packed.of(
                    store, self.row_length, **settings, keep=mask, name=name
                )
            except DataError as error:
                raise DataError(
                    error.what,
                    where=f"{self.where}, {name}: {error.where}",
                    wanted=error.wanted,
                    got=error.got,
                    do=error.do,
                ) from None
        return self.known[key]


def plain(
    phase: Phase, stores: dict[str, TokenStore], make: Maker, where: str
) -> tuple[list[Packed], list[float] | None]:
    """The sources of a phase mixed by hand or not at all, in the stores' order, and their weights."""
    named = _named(phase, Sampling(), list(stores), where)
    sources = [make(label, label) for label in stores if label in named]
    weights = [named[source.name] for source in sources] if phase.mixture else None
    return sources, weights


def mixed(
    phase: Phase,
    stores: dict[str, TokenStore],
    languages: Languages,
    make: Maker,
    num_rows: int,
    where: str,
) -> tuple[list[Packed], list[float]]:
    """The sources that a phase draws from, and their weights in rows."""
    rule = phase.sampling or Sampling()
    if rule.by == "weights" and not phase.mixture:
        rule = rule.model_copy(update={"by": "size"})
    named = _named(phase, rule, languages.names if rule.over == "language" else list(stores), where)
    groups: dict[str, list[Packed]] = {}
    for name in named:
        if rule.over == "source":
            found = [make(name, name)]
        else:
            code = languages.names.index(name)
            found = [
                make(label, f"{label}:{name}", codes == code)
                for label, codes in languages.codes.items()
                if (codes == code).any()
            ]
        groups[name] = [source for source in found if len(source)]
        if not groups[name]:
            raise DataError(
                f"nothing of {name!r} is left to train on",
                where=where,
                wanted="at least one sequence that passes the thresholds",
                got=", ".join(f"{key}: {each}" for key, each in phase.thresholds.items()) or None,
                do='lower them, or set missing = "keep" for sources that do not have the score',
            )
    sizes = np.array([sum(map(len, members)) for members in groups.values()], np.float64)
    tokens = np.array([sum(each.num_tokens for each in members) for members in groups.values()])
    shares = _shares(rule, named, sizes, tokens / sizes, num_rows, where)
    sources, weights = [], []
    for members, share, size in zip(groups.values(), shares, sizes):
        sources += members
        weights += [share * len(each) / size for each in members]
    return sources, weights


def _named(phase: Phase, rule: Sampling, there: list[str], where: str) -> dict[str, float]:
    """What the phase draws from, and the mixture's numbers for it."""
    mixture = phase.mixture or dict.fromkeys(there, 1.0)
    kind = "language" if rule.over == "language" else "store"
    for name in [*mixture, *(rule.max_epochs if isinstance(rule.max_epochs, dict) else ())]:
        if name not in there:
            raise RecipeError(
                f"there is no {kind} named {name!r}", where=where, do=nearest(name, there)
            )
    if any(not share >= 0 for share in mixture.values()) or not sum(mixture.values()):
        raise RecipeError(
            "shares must be numbers from 0, not all 0", where=f"{where}: mixture", got=mixture
        )
    mixture = {name: share for name, share in mixture.items() if share}
    if rule.by != "weights" and len(set(mixture.values())) > 1:
        raise RecipeError(
            f'by = "{rule.by}" takes its shares from the sizes, not from the mixture',
            where=f"{where}: mixture",
            wanted="numbers that are alike, or none",
            got=mixture,
        )
    return mixture


def _shares(
    rule: Sampling,
    named: dict[str, float],
    sizes: np.ndarray,
    filled: np.ndarray,
    num_rows: int,
    where: str,
) -> np.ndarray:
    """The share of the phase's rows for each thing named.

    sizes: in rows, which packing makes alike, so that epochs are exact. filled: tokens of a mean row; a
    share of tokens p takes p / filled of the rows.
    """
    caps = rule.max_epochs
    try:
        if rule.by == "unimax":
            return sampling.unimax(sizes, num_rows, caps)
        if rule.by == "weights":
            shares = np.array(list(named.values())) / filled
        elif rule.by == "temperature":
            shares = sampling.temperature(sizes, rule.temperature)
        else:
            shares = sizes
        shares = shares / shares.sum()
        if caps is None:
            return shares
        each = caps if isinstance(caps, dict) else dict.fromkeys(named, caps)
        most = np.array([each.get(name, np.inf) for name in named])
        return sampling.capped(shares, sizes, num_rows, most)
    except RecipeError as error:
        raise RecipeError(
            error.what,
            where=where,
            wanted=error.wanted and f"{error.wanted} rows",
            got=error.got and f"{error.got} rows",
            do=error.do,
        ) from None


def kept(
    phase: Phase, stores: dict[str, TokenStore], languages: Languages, where: str
) -> dict[str, np.ndarray | None]:
    """For each store which sequences pass all thresholds of the phase; None: all.

    Groups reach through all stores of the run, named by the mixture or not, so that a threshold means
    the same in every phase.
    """
    if not phase.thresholds:
        return dict.fromkeys(stores)
    scores = {label: store.scores for label, store in stores.items()}
    there = list(dict.fromkeys(name for each in scores.values() for name in each))
    borders = np.cumsum([len(store) for store in stores.values()])[:-1]
    keep = np.ones(sum(map(len, stores.values())), bool)
    for name, threshold in phase.thresholds.items():
        if name not in there:
            raise RecipeError(
                f"no store has the score {name!r}",
                where=f"{where}: thresholds",
                do=nearest(name, there) if there else "score the documents first",
            )
        score = np.concatenate(
            [
                scores[label].get(name, np.full(len(store), np.nan, np.float32))
                for label, store in stores.items()
            ]
        )
        if threshold.per == "language":
            group = np.concatenate(list(languages.codes.values()))
        elif threshold.per == "source":
            group = np.repeat(np.arange(len(stores)), [len(store) for store in stores.values()])
        else:
            group = np.zeros(len(score), np.int64)
        keep &= passing(
            score,
            group,
            at_least=threshold.at_least,
            at_most=threshold.at_most,
            top=threshold.top,
            missing=threshold.missing == "keep",
        )
    return dict(zip(stores, np.split(keep, borders)))
