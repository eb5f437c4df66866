"""The claims of Typhoon-S: their addresses, and what differs between their rows."""

import json
import os
from pathlib import Path

from endonym.core import recipe as recipes
from endonym.core.plan import plan
from endonym.core.store import Store
from endonym.stages.table import stage

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "claims" / "typhoon_s.toml"
GOLDEN = Path(__file__).with_name("golden_claims_typhoon_s.json")


def test_addresses_are_the_reviewed_ones(tmp_path):
    """ENDONYM_WRITE_GOLDEN=1 pytest tests/recipes accepts a change; say in the commit why."""
    steps = plan(recipes.load(RECIPE, "tiny"), Store(tmp_path), stage)
    found = {"tiny": {name: one.address for name, one in steps.items()}}
    if os.environ.get("ENDONYM_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_rows_of_one_seed_begin_alike_and_differ_in_one_thing():
    nodes = recipes.load(RECIPE, "tiny").nodes

    def settings(name, *but):
        return {key: value for key, value in nodes[name].settings.items() if key not in but}

    for seed in (0, 1, 2):
        full = settings(f"full_{seed}")
        assert settings(f"tail_{seed}", "top_k", "tail") == settings(f"top_{seed}", "top_k") == full
        assert settings(f"opd_without_{seed}") == settings(f"full_{seed}", "mixture") | {
            "data": {"general": "@questions_replay"}
        }
        assert settings(f"late_{seed}", "model") == settings(f"full_{seed}", "model")
        assert settings(f"never_{seed}", "model") == settings(f"opd_without_{seed}", "model")
        assert settings(f"full_general_{seed}", "model") == settings(f"full_{seed}", "model")
        assert settings(f"sft_general_{seed}", "model") == settings(f"sft_{seed}", "model")
        assert settings(f"adapted_{seed}", "phases") == settings(f"general_{seed}", "phases")
        lengths = [
            [phase["steps"] for phase in nodes[f"{name}_{seed}"].settings["phases"]]
            for name in ("adapted", "general")
        ]
        assert lengths[0] == lengths[1]
        grpo = settings(f"grpo_{seed}")
        for name in ("ink", "other"):
            assert settings(f"{name}_{seed}", "knowledge", "ink") == grpo
        ink, other = (settings(f"{name}_{seed}")["ink"] for name in ("ink", "other"))
        assert {**ink, "mixture": 0} == {**other, "mixture": 0}
        assert not {"new", "statutes"} & set(other["mixture"])


def test_what_is_asked_at_the_end_is_asked_in_no_training():
    """Injected towns stand in the knowledge text alone, unseen ones in no text."""
    nodes = recipes.load(RECIPE, "tiny").nodes
    groups = {}
    for name, node in nodes.items():
        for source in node.settings.get("sources", []):
            for group in source.get("groups", []):
                groups.setdefault(group, set()).add(name)
    assert groups["text"] == {"exam_injected", "shelf", "statutes", "new_laws"}
    assert groups["never"] == {"exam_unseen", "shelf"}
    injecting = {"ink", "read"}
    for name, node in nodes.items():
        inputs = json.dumps(node.settings)
        if "@new_laws" in inputs or "@knowledge" in inputs:
            assert name.rpartition("_")[0] in injecting
        if "@shelf" in inputs:
            assert node.use == "evaluate"
