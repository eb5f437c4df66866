"""What can go wrong, said in five parts: what failed, where, wanted, got, what to do.

Four kinds are enough. A user's mistake or a damaged file is one of these; a broken invariant of
our own is an assert.
"""


class EndonymError(Exception):
    """A failure that a person can act on.

    what:   the failure, one sentence
    where:  file, file:line, or recipe:key
    wanted: what would have been right
    got:    what was found instead
    do:     the next step for the reader
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        wanted: object = None,
        got: object = None,
        do: str | None = None,
    ):
        self.what, self.where, self.wanted, self.got, self.do = what, where, wanted, got, do
        super().__init__(str(self))

    def parts(self) -> list[tuple[str, str]]:
        """The parts that are known, in reading order."""
        rows = [("where", self.where), ("wanted", self.wanted), ("got", self.got), ("do", self.do)]
        return [(name, str(value)) for name, value in rows if value is not None]

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  {name}: {value}" for name, value in self.parts())])


class RecipeError(EndonymError):
    """The recipe, a setting or a command-line value is not what its reader takes."""

    exit_code = 2


class DataError(EndonymError):
    """Input data is missing, malformed or contradicts its declaration."""

    exit_code = 3


class StoreError(EndonymError):
    """An artifact or the store itself is damaged, locked or not writable."""

    exit_code = 4


class MachineError(EndonymError):
    """This machine lacks what was asked for: memory, disk, a device, an optional package."""

    exit_code = 5
