"""A byte-level BPE vocabulary out of texts, with the stock trainer (tokenizers.BpeTrainer)."""

from collections.abc import Callable, Iterable, Iterator

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError
from endonym.tokenizer import chat, pretokenize
from endonym.tokenizer.folder import Tokenizer

Segmenter = Callable[[str], list[str]]
"""A line -> its words, which joined give the line again (pythainlp's newmm with white space kept)."""

BORDER = "\ufdd0"
"""A noncharacter between words, at training only. Texts that hold it lose it there."""

SMALLEST = 256 + len(chat.SPECIALS)


def train(
    texts: Iterable[str],
    vocab_size: int,
    segment: Segmenter | None = None,
    *,
    longest_run: int = pretokenize.LONGEST_RUN,
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens: three control tokens, 256 bytes, then merges.

    Any bytes can be written; digits stand alone; letters keep their marks. `segment` is asked at
    training only, so that merges end at the words of a script without spaces while encoding needs
    no dictionary. The control tokens (ids 0 to 2) and the ChatML template are there from the start.
    Fewer tokens come out where the texts hold no more pairs that occur twice: see vocab_size.
    """
    if vocab_size < SMALLEST:
        raise DataError(
            "the vocabulary is too small for a byte-level tokenizer",
            wanted=f"at least {SMALLEST} (256 bytes, {len(chat.SPECIALS)} control tokens)",
            got=vocab_size,
        )
    backend = Backend(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(pretokenize.words(longest_run)), "isolated")
    border = pre_tokenizers.Split(BORDER, "removed")
    backend.pre_tokenizer = pre_tokenizers.Sequence([border, split, byte_level])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(text, normalized=False) for text in chat.SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(bordered(texts, segment), trainer)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    named = {"eos_token": chat.END_OF_DOCUMENT, "pad_token": chat.END_OF_DOCUMENT}
    return Tokenizer(backend, named, chat.CHATML)


def bordered(texts: Iterable[str], segment: Segmenter | None) -> Iterator[str]:
    """Lines of the texts, line ends kept, with BORDER between words that nothing else would part."""
    for text in texts:
        for line in text.replace(BORDER, "").splitlines(keepends=True):
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
