"""Datasets of the Hub, out of a cache made here: no test asks the network."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from endonym.core.errors import DataError, MachineError
from endonym.data.hub import dataset

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "data/train-00000-of-00002.jsonl": '{"text": "a"}\n',
    "data/train-00001-of-00002.jsonl": '{"text": "b"}\n',
    "data/test-00000-of-00001.jsonl": '{"text": "c"}\n',
    "README.md": "# a card",
    "dataset_info.json": "{}",
    "all.zip": "PK",
}


def cache(home: Path, contents=FILES) -> Path:
    """A cache as huggingface_hub lays it: names that link to blobs."""
    top = home / "hub" / "datasets--lab--corpus"
    snapshot = top / "snapshots" / COMMIT
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(COMMIT)
    (top / "blobs").mkdir()
    for number, (name, text) in enumerate(contents.items()):
        (top / "blobs" / str(number)).write_text(text)
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(top / "blobs" / str(number), path.parent))
    return snapshot


def online(monkeypatch, snapshot, names, asked=None):
    """A Hub that lists `names` and whose files lie in `snapshot` already."""

    def dataset_info(self, name, revision=None):
        siblings = [SimpleNamespace(rfilename=each) for each in names]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def snapshot_download(name, **settings):
        if asked is not None:
            asked.append((name, settings))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def failing(monkeypatch, error):
    def dataset_info(self, name, revision=None):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)


def test_files_that_fit_are_fetched_at_the_commit_and_no_others(tmp_path, monkeypatch):
    asked = []
    snapshot = cache(tmp_path)
    online(monkeypatch, snapshot, FILES, asked)
    found = dataset("lab/corpus", "v1", "data/train-*")
    assert found.commit == COMMIT
    assert [path.name[:11] for path in found.files] == ["train-00000", "train-00001"]
    ((name, settings),) = asked
    assert name == "lab/corpus" and settings["revision"] == COMMIT
    assert settings["allow_patterns"] == [each for each in sorted(FILES) if "train" in each]
    everything = dataset("lab/corpus", files="*")
    assert len(everything.files) == 3  # no card, no information about the data, no archive


def test_which_of_several_files_are_meant_is_not_guessed(tmp_path, monkeypatch):
    snapshot = cache(tmp_path)
    online(monkeypatch, snapshot, FILES)
    with pytest.raises(DataError, match="has 3 data files") as error:
        dataset("lab/corpus")
    assert "data/train-*" in str(error.value) and "data/test-0" in str(error.value)
    with pytest.raises(DataError, match="no data file fits 'trian"):
        dataset("lab/corpus", files="trian-*")
    online(monkeypatch, snapshot, ["README.md", "data/test-00000-of-00001.jsonl"])
    assert len(dataset("lab/corpus").files) == 1
    online(monkeypatch, snapshot, ["README.md", "a.zip"])
    with pytest.raises(DataError, match="without data files"):
        dataset("lab/corpus", files="*")


@pytest.mark.parametrize(
    "name", ["../evil.jsonl", "/etc/evil.jsonl", "a/../../b.jsonl", "a\\b.jsonl"]
)
def test_a_list_that_leads_outside_is_refused(tmp_path, monkeypatch, name):
    asked = []
    online(monkeypatch, cache(tmp_path), [*FILES, name], asked)
    with pytest.raises(DataError, match="outside of itself"):
        dataset("lab/corpus", files="data/train-*")
    assert not asked


def test_a_link_that_leads_outside_of_the_cache_is_refused(tmp_path, monkeypatch):
    snapshot = cache(tmp_path / "home")
    (tmp_path / "secret.jsonl").write_text('{"text": "s"}')
    (snapshot / "x.jsonl").symlink_to(tmp_path / "secret.jsonl")
    online(monkeypatch, snapshot, ["x.jsonl"])
    with pytest.raises(DataError, match="outside of it"):
        dataset("lab/corpus")


def test_what_goes_wrong_is_said(monkeypatch):
    http = sys.modules[errors.HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
    answer = http.Response(404, request=http.Request("GET", "https://example.org"))
    made = [
        (errors.RepositoryNotFoundError("x", response=answer), DataError, "no such dataset"),
        (errors.GatedRepoError("x", response=answer), DataError, "gated"),
        (errors.RevisionNotFoundError("x", response=answer), DataError, "no such revision"),
        (errors.HfHubHTTPError("503", response=answer), MachineError, "cannot be reached"),
        (ConnectionError("no route"), MachineError, "cannot be reached"),
        (http.ConnectError("no route"), MachineError, "cannot be reached"),
        (ZeroDivisionError("a fault of ours"), ZeroDivisionError, "ours"),
    ]
    for error, kind, words in made:
        failing(monkeypatch, error)
        with pytest.raises(kind, match=words):
            dataset("lab/corpus", "v1")


OFFLINE = """
import json, sys
from endonym.data.hub import dataset
from endonym.core.errors import EndonymError
try:
    found = dataset(*sys.argv[1:])
    print(json.dumps([found.commit, [path.name for path in found.files]]))
except EndonymError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def offline(home, *asked):
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *asked],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ
        | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(home / "hub")},
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_offline_the_cache_is_used_and_nothing_else(tmp_path):
    cache(tmp_path)
    commit, names = offline(tmp_path, "lab/corpus", "main", "data/train-*")
    assert commit == COMMIT and len(names) == 2
    kind, said = offline(tmp_path, "lab/other", "", "*")
    assert kind == "DataError" and "not whole in the cache" in said and "HF_HUB_OFFLINE" in said
