"""A job by submitit: its local executor starts the tasks that Slurm would. No Slurm was at hand."""

import sys
from pathlib import Path

import pytest

from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import MachineError, RecipeError
from endonym.train import slurm
from train import met


@pytest.fixture
def context(tmp_path):
    return Context(
        scratch=tmp_path,
        processes=2,
        threads=1,
        console=Console(quiet=True),
        slurm={"executor": "local", "timeout_min": 3},
    )


def test_two_tasks_of_a_job_meet(context, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    outcome = met.met(met.MetConfig(), context, tmp_path)
    assert outcome.figures["found"] == [[0, [0, 2], None], [1, [1, 2], None]]
    assert list((tmp_path / "slurm").glob("*_log.err")), "the logs stay in the scratch folder"


def test_processes_that_cannot_be_divided_among_nodes_are_refused(context):
    pytest.importorskip("submitit")
    odd = Context(scratch=context.scratch, slurm={"nodes": 2, "executor": "local"})
    with pytest.raises(RecipeError, match="divided among the nodes"):
        slurm.run(None, 3, odd)


def test_without_submitit_the_extra_is_named(context, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MachineError, match=r"endonym\[slurm\]"):
        slurm.run(None, 2, context)
