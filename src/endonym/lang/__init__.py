"""What is true of a language without any model: scripts, words, numbers, names. Packs are data.

pythainlp looks for corpora on the network unless told not to; everything used here is inside its
wheel, so it is told so once, before anything can import it.
"""

import os

os.environ.setdefault("PYTHAINLP_OFFLINE", "1")
os.environ.setdefault("PYTHAINLP_READ_ONLY", "1")
