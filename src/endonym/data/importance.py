"""How much more a text is like one set of texts than like another: importance weights of n-grams.

DSIR (Xie et al. 2023, arXiv:2302.03169) maps a text to counts z of m hashed n-grams and models
both sets as bags of them:

    p(z) = prod_j gamma_j^z_j,   gamma_j = sum_i z_ij / sum_i sum_k z_ik        from the wanted set
    q(z)                         the same from the ordinary set
    log w = log p(z) - log q(z) = sum_j z_j log(gamma_j / delta_j)

It draws texts by w; here log w is a score that a threshold acts on. Where we depart from the paper,
with m = 10,000 words and pairs of words: n-grams are of 1 to 5 characters, so that no words are
needed (Thai, Lao); m is larger, for there are more of them; gamma_j = (count_j + k) / (count + k m),
since an n-gram that a small wanted set lacks would make w 0 (the paper's sets need no smoothing,
k = 0); and the sum is divided by the text's UTF-8 bytes, for w grows with length. The n-grams of one
text overlap, so the score orders texts and is no probability.
"""

import unicodedata
from collections.abc import Iterable

import numpy as np

from endonym.core.errors import DataError

LONGEST = 5
"""Characters of an n-gram, at most."""
BUCKETS = 1 << 18
SMOOTHING = 1.0
ODD = np.uint64(0x9E3779B97F4A7C15)


class Importance:
    """Log-likelihood ratios of n-grams, learnt from two sets of texts in one pass over each.

    Memory: two counts for each of `buckets`. Texts are NFC and case-folded, white space is one space.
    """

    def __init__(
        self,
        wanted: Iterable[str],
        ordinary: Iterable[str],
        *,
        longest: int = LONGEST,
        buckets: int = BUCKETS,
        smoothing: float = SMOOTHING,
    ):
        self.longest, self.buckets = longest, buckets
        logs = []
        for name, texts in (("wanted", wanted), ("ordinary", ordinary)):
            counts = np.zeros(buckets, np.float64)
            for text in texts:
                counts += np.bincount(self.grams(text), minlength=buckets)
            if not counts.sum():
                raise DataError("there is no text to learn from", where=name)
            logs.append(np.log((counts + smoothing) / (counts.sum() + smoothing * buckets)))
        self.ratios = logs[0] - logs[1]
        """log(gamma_j / delta_j), [m]."""

    def score(self, text: str) -> float:
        """log w of a text, in nats a byte: above 0 more like the wanted set; 0 for an empty text."""
        return float(self.ratios[self.grams(text)].sum() / max(len(text.encode()), 1))

    def grams(self, text: str) -> np.ndarray:
        """The buckets of all n-grams of a text, [number of n-grams] int64."""
        plain = " ".join(unicodedata.normalize("NFC", text).casefold().split())
        codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        letters = codes.astype(np.uint64) + np.uint64(1)
        found, running = [], np.zeros(len(letters), np.uint64)
        with np.errstate(over="ignore"):
            for n in range(1, min(self.longest, len(letters)) + 1):
                # h(c_1 .. c_n) = h(c_1 .. c_n-1) * ODD + c_n, for every place where n are left
                running = running[: len(letters) - n + 1] * ODD + letters[n - 1 :]
                mixed = (running ^ (running >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
                found.append((mixed ^ (mixed >> np.uint64(29))) % np.uint64(self.buckets))
        return np.concatenate([*found, np.empty(0, np.uint64)]).astype(np.int64)
