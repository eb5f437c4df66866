"""`endonym new-language`: the beginning of a language's pack, and what a speaker must check."""


def new_language(code: str) -> None:
    """Write a pack for a language from CLDR."""
    raise NotImplementedError
