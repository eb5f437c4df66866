"""A stage whose processes only meet: what a job's tasks know of each other."""

from pathlib import Path

from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome, Stage
from endonym.train import launch


class MetConfig(Config):
    pass


def met(config: MetConfig, context: Context, out: Path) -> Outcome:
    if launch.wanted(context):
        return launch.spread(STAGE, config, context, out, {})
    from endonym.train import parallel

    here = parallel.ranks(context)
    found = here.gather((here.rank, here.part, context.slurm))
    here.barrier()
    if not here.main:
        raise parallel.Left
    return Outcome({"found": found})


STAGE = Stage("met", 1, "none", MetConfig, {}, met)
