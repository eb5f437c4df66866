"""Data files of a dataset on the Hugging Face Hub: fetched into its cache, named with their commit.

    dataset("ORG/NAME", revision="v1.1", files="data/train-*") -> Snapshot(commit, [paths])

HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured, for huggingface_hub does the fetching. Offline,
what the cache holds is used; where its listing says that files are missing, that is an error. No code
of a repository is run and no archive is unpacked: its files are read like any others.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath

from endonym.core.errors import DataError, MachineError
from endonym.data.files import ENDINGS, is_data


@dataclass(frozen=True)
class Snapshot:
    """The data files of a dataset as they stood at a commit."""

    commit: str
    files: list[Path]


def dataset(name: str, revision: str = "", files: str = "") -> Snapshot:
    """The files of the dataset `name` (ORG/NAME) at `revision` (commit, tag or branch; "": its main
    branch as it stands now) whose path fits `files`, in order of their names.

    files: a pattern in which * also stands for "/": "data/train-*", "*.parquet", "*" for all. Left
           empty, the dataset must have one data file only: which of several are for training is not
           guessed.

    DataError where there is no such dataset, revision or file; MachineError where the Hub cannot be
    reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        try:
            found = HfApi().dataset_info(name, revision=revision or None)
        except OfflineModeIsEnabled:
            folder = Path(
                snapshot_download(
                    name,
                    repo_type="dataset",
                    revision=revision or None,
                    allow_patterns=files or None,
                    local_files_only=True,
                )
            )
            listed = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            chosen = _chosen(listed, files, name)
        else:
            chosen = _chosen([each.rfilename for each in found.siblings or []], files, name)
            folder = Path(
                snapshot_download(
                    name,
                    repo_type="dataset",
                    revision=found.sha,
                    allow_patterns=[escape(each) for each in chosen],
                )
            )
    except (DataError, MachineError):
        raise
    except Exception as error:
        raise _explained(error, name, revision) from None
    paths = [folder / each for each in chosen]
    for path in paths:
        _check_inside(path, folder)
    return Snapshot(folder.name, paths)


def _chosen(listed: list[str], files: str, name: str) -> list[str]:
    """The data files among those listed that are meant. DataError where none or too many are."""
    for each in listed:
        path = PurePosixPath(each)
        if path.is_absolute() or ".." in path.parts or "\\" in each:
            raise DataError("a dataset lists a file outside of itself", where=name, got=repr(each))
    known = sorted(each for each in listed if is_data(each))
    chosen = [each for each in known if fnmatchcase(each, files)] if files else known
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    if not known:
        raise DataError("a dataset without data files", where=name, wanted=", ".join(ENDINGS))
    if not chosen:
        raise DataError(f"no data file fits {files!r}", where=name, wanted=f"some of: {shown}")
    if not files and len(chosen) > 1:
        raise DataError(
            f"the dataset has {len(chosen)} data files",
            where=name,
            wanted='files = "a pattern", e.g. "data/train-*"; "*" for all',
            got=shown,
        )
    return chosen


def _check_inside(path: Path, folder: Path) -> None:
    """A cached file is a link into the cache; one that leads elsewhere is not the Hub's doing."""
    cache = folder.parents[2].resolve()  # <cache>/datasets--ORG--NAME/snapshots/<commit>
    if cache not in path.resolve().parents:
        raise DataError("a file of the cache lies outside of it", where=path, got=path.resolve())


def _explained(error: Exception, name: str, revision: str) -> DataError | MachineError | Exception:
    """What went wrong with the Hub, said for a reader; any other exception as it is."""
    from huggingface_hub import errors

    where = f"{name}@{revision}" if revision else name
    said = (str(error) or type(error).__name__).splitlines()[0][:200]
    if isinstance(error, errors.GatedRepoError):
        return DataError(
            "the dataset is gated",
            where=where,
            do="accept its terms on its page and set HF_TOKEN, or run `hf auth login`",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError("the dataset has no such revision", where=where)
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return DataError(
            "there is no such dataset on the Hub",
            where=where,
            wanted='hub = "ORG/NAME"',
            do="check the name; for a private dataset set HF_TOKEN",
        )
    if isinstance(error, errors.LocalEntryNotFoundError):  # also an incomplete snapshot
        return DataError(
            "the dataset is not whole in the cache, and the Hub was not asked",
            where=where,
            got=said,
            do="run once with a network and without HF_HUB_OFFLINE, or point HF_HOME to a cache "
            "that has it",
        )
    if isinstance(
        error, errors.HfHubHTTPError | ConnectionError | TimeoutError
    ) or _is_of_the_network(error):
        return MachineError(
            "the Hub cannot be reached",
            where=where,
            got=said,
            do="try again; with HF_HUB_OFFLINE=1 what the cache holds is used",
        )
    return error


def _is_of_the_network(error: Exception) -> bool:
    """Whether the exception is the HTTP library's, whichever huggingface_hub uses."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests")
