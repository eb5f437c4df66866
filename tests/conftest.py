"""Generated examples are the same in every run, and none is refused for being slow on a busy machine.

pytest --hypothesis-profile=explore looks for new ones.
"""

from hypothesis import settings

settings.register_profile("explore", deadline=None, max_examples=500)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
