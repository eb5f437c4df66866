"""A byte-level BPE vocabulary out of texts, with the stock trainers (BpeTrainer, ParityBpeTrainer)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.tokenizer import chat, corpus, pretokenize, superbpe
from endonym.tokenizer.corpus import Segmenter
from endonym.tokenizer.folder import Tokenizer

BORDER = "\ufdd0"
"""A noncharacter between words, at training only. Texts that hold it lose it there."""

MIN_COUNT = 2
"""Occurrences below which a pair is not merged."""

Texts = Iterable[str] | Mapping[str, Iterable[str]]


def train(
    texts: Texts,
    vocab_size: int,
    segment: Segmenter | None = None,
    *,
    longest_run: int = pretokenize.LONGEST_RUN,
    parity: Mapping[str, Iterable[str]] | None = None,
    superwords_from: int | None = None,
    words_at_most: int = 4,
    reserved: Sequence[str] = (),
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens: control tokens, 256 bytes, then merges.

    Any bytes can be written; digits stand alone; letters keep their marks. The control tokens (ids 0
    to 2, then those `reserved`, e.g. for modality spans) and the ChatML template are there from the
    start. Fewer tokens come out where the texts hold no more pairs that occur twice: see vocab_size.

    Memory goes by the different pre-tokens, which level off in text with spaces or with `segment`
    (50 MB of Thai: 0.7 GB). Without them every run of letters is another one, about 100 bytes for
    each byte of such text (50 MB: 5 GB): bound it with corpus.Corpus(texts, limit=...).

    texts:           what is learnt from (corpus.py: checked as it passes), or that by language
    segment:         line -> words; asked at training only, so that merges end at the words of a
                     script without spaces while encoding needs no dictionary
    parity:          language -> texts that say the same in each (parallel text). Each merge then
                     helps the language that spends the most tokens on them (Parity-aware BPE, arXiv
                     2508.04796), so `texts` must be by language too. Without parallel text take
                     corpus.equal_lengths(texts): as many tokens a character in each
    superwords_from: vocabulary at which merges begin to cross words (superbpe.py); vocab_size or
                     None for never
    words_at_most:   of a superword
    """
    specials = [*chat.SPECIALS, *reserved]
    first_size = vocab_size if superwords_from is None else superwords_from
    _check_sizes(specials, first_size, vocab_size)
    by_language = texts if isinstance(texts, Mapping) else {"": texts}
    if superwords_from is not None:  # read twice
        by_language = {name: corpus.Corpus(each) for name, each in by_language.items()}
    every = corpus.Joined(by_language.values())
    backend = Backend(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(pretokenize.words(longest_run)), "isolated")
    border = pre_tokenizers.Split(BORDER, "removed")
    backend.pre_tokenizer = pre_tokenizers.Sequence([border, split, byte_level])
    backend.decoder = decoders.ByteLevel()
    settings = {
        "min_frequency": MIN_COUNT,
        "special_tokens": [AddedToken(text, normalized=False) for text in specials],
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
        "show_progress": False,
    }
    if parity is None:
        trainer = trainers.BpeTrainer(vocab_size=first_size, **settings)
        backend.train_from_iterator(bordered(corpus.checked(every), segment), trainer)
    else:
        _check_languages(texts, parity)
        trainer = trainers.ParityBpeTrainer(num_merges=first_size - 256 - len(specials), **settings)
        trainer.train_from_iterator(
            backend,
            [bordered(corpus.checked(by_language[name]), segment) for name in parity],
            [bordered(corpus.checked(balance), segment) for balance in parity.values()],
        )
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    named = {"eos_token": chat.END_OF_DOCUMENT, "pad_token": chat.END_OF_DOCUMENT}
    made = Tokenizer(backend, named, chat.CHATML)
    if first_size == vocab_size:
        return made
    return superbpe.grow(
        made,
        every,
        vocab_size,
        words_at_most=words_at_most,
        segment=segment,
        min_count=MIN_COUNT,
    )


def _check_sizes(specials: Sequence[str], first_size: int, vocab_size: int) -> None:
    if len(set(specials)) < len(specials) or "" in specials:
        raise DataError(
            "a control token is reserved twice or empty",
            wanted=f"names other than {', '.join(chat.SPECIALS)}, each once",
            got=", ".join(map(repr, specials[len(chat.SPECIALS) :])),
        )
    smallest = 256 + len(specials)
    if first_size < smallest:
        raise DataError(
            "the vocabulary is too small for a byte-level tokenizer",
            wanted=f"at least {smallest} (256 bytes, {len(specials)} control tokens)",
            got=first_size,
        )
    if first_size > vocab_size:
        raise DataError(
            "superwords would begin after the vocabulary is full",
            wanted=f"superwords_from of at most {vocab_size}",
            got=first_size,
        )


def _check_languages(texts: Texts, parity: Mapping[str, Iterable[str]]) -> None:
    named = list(texts) if isinstance(texts, Mapping) else []
    if len(parity) < 2 or set(named) != set(parity):
        raise DataError(
            "parity needs the texts of each language apart",
            wanted=f"texts by language: {', '.join(parity)} (two at least)",
            got=", ".join(named) or "texts of unnamed languages",
            do="give texts as {language: texts}, with the languages of parity",
        )


def bordered(texts: Iterable[str], segment: Segmenter | None) -> Iterator[str]:
    """Lines of the texts, line ends kept, with BORDER between words that nothing else would part."""
    for text in texts:
        for line in corpus.lines([text.replace(BORDER, "")]):
            yield line if segment is None or line.isascii() else _between(segment(line), line)


def _between(words: list[str], line: str) -> str:
    """Words joined by BORDER where letters touch; a space stays with the word that it opens."""
    if "".join(words) != line:
        raise DataError(
            "a segmenter changed the text",
            wanted=f"words that join to {line[:60]!r}",
            got=repr("".join(words)[:60]),
            do="use one that keeps white space",
        )
    out, last = [], ""
    for word in filter(None, words):
        touching = last and pretokenize.is_letter(last) and pretokenize.is_letter(word[0])
        out.append(BORDER + word if touching else word)
        last = word[-1]
    return "".join(out)
