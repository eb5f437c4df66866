"""Libraries that only some languages need: asked for when a text is at hand, never at import."""

from importlib import import_module, metadata
from types import ModuleType

from endonym.core.errors import MachineError


def need(module: str, extra: str, what: str) -> ModuleType:
    """The module, imported; a MachineError that names the extra where it is not installed.

    what: what needs it, as the beginning of a sentence: "words of Thai".
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # A module missing inside an installed library is that library's trouble, not ours to name.
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise MachineError(
            f"{what}: {module.partition('.')[0]} is not installed",
            do=f"pip install 'endonym[{extra}]'",
        ) from None


def version(package: str, extra: str = "") -> str:
    """ "nlpo3 1.4.0", or how to install it where it is not."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        wanted = f"endonym[{extra}]" if extra else "endonym"
        return f"{package} is not installed: pip install '{wanted}'"
