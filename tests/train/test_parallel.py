"""Two and four processes train what one does: the same losses, checkpoints that go from one to another.

Bound: float32 sums taken in another order. Over 20 steps the losses came out within 1.3e-7 of those of
one process (relative), the gradient norms within 2e-7; asked for is 1e-6.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from endonym.core.context import Context, Layout
from endonym.core.errors import MachineError, RecipeError, StoreError
from endonym.train import optim, parallel, state
from endonym.train.ema import Ema
from endonym.train.manifest import MANIFEST, verify
from train import together

BOUND = 1e-6

SAME = [
    "untied:2",
    "muon:2:checkpointing=1",
    "skips:2",
    "shared:2:context=2",
    "lora:2",
    "foreign:2",
    "tied:1:offload=1",
    "live:2",
    "live_lora:2",
]
RESUMED = {
    "untied:1:in=up": "untied:2:in=up,stop=10",
    "muon:2:expert=2,in=down": "muon:1:in=down,stop=9",
    "tied:2:in=copies": "tied:4:replicate=2,in=copies,stop=4",
    "shared:1:in=across": "shared:4:context=2,expert=2,in=across,stop=4",
    "untied:2:in=again": "untied:2:in=again,stop=11",
    "live:2:in=living": "live:2:in=living,stop=7",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("the ranks are forked")
    wanted = [*SAME, *(each for pair in RESUMED.items() for each in reversed(pair))]
    alone = sorted({f"{each.split(':')[0]}:1" for each in wanted})
    folder = tmp_path_factory.mktemp("together")
    done = subprocess.run(
        [sys.executable, together.__file__, str(folder), *alone, *wanted],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) | {"folder": folder}


def assert_same_curve(one, other):
    assert len(one["losses"]) == len(other["losses"]) == together.STEPS
    losses = [torch.tensor(each["losses"], dtype=torch.float64) for each in (one, other)]
    torch.testing.assert_close(losses[1], losses[0], rtol=BOUND, atol=0)
    # AdamW does not see a factor on the gradients: the norms do. (LoRA's begin at nearly nothing.)
    norms = [torch.tensor(each["norms"], dtype=torch.float64) for each in (one, other)]
    torch.testing.assert_close(norms[1], norms[0], rtol=10 * BOUND, atol=0)
    assert one["losses"][0] > 1.03 * one["losses"][-1], (
        "nothing was learned, so nothing is compared"
    )
    assert one["tokens"] == other["tokens"] and one["names"] == other["names"]
    for when in ("before", "after"):
        figures = [each["probes"]["head/squares"][when] for each in (one, other)]
        assert figures[1] == pytest.approx(figures[0], rel=BOUND)


@pytest.mark.parametrize("case", SAME)
def test_several_processes_learn_what_one_does(found, case):
    assert_same_curve(found[f"{case.split(':')[0]}:1"], found[case])


@pytest.mark.parametrize("after", RESUMED)
def test_a_checkpoint_is_taken_up_by_another_number_of_processes(found, after):
    """And a SIGTERM to one rank stops all of them after the same step."""
    before, stop = RESUMED[after], int(RESUMED[after].rpartition("=")[2])
    assert found[before] == {"stopped": 15, "step": stop}
    assert found[after]["resumed_at"] == stop
    assert_same_curve(found[f"{after.split(':')[0]}:1"], found[after])


def test_resumed_by_as_many_it_is_bitwise_the_uninterrupted_run(found):
    for name in ("sha256", "log"):
        assert found["untied:2:in=again"][name] == found["untied:2"][name]
        assert found["live:2:in=living"][name] == found["live:2"][name]


DAMAGES = {
    **{
        f"truncated at {share}": lambda data, s=share: data[: int(len(data) * s)]
        for share in (0.001, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.999)
    },
    **{
        f"bit flipped at {n}/19": lambda data, n=n: flipped(data, (len(data) - 1) * n // 19)
        for n in range(20)
    },
    "emptied": lambda data: b"",
    "deleted": None,
}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.fixture(scope="module")
def sharded(found):
    """Two checkpoints of two processes each, steps 11 and 20."""
    return found["folder"] / "run-again" / "checkpoints"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_several_processes_is_named(sharded, tmp_path, damage):
    names = sorted(path.name for path in (sharded / "step-00000020").iterdir())
    assert names == [MANIFEST, *(f"state-0000{rank}-of-00002.safetensors" for rank in (0, 1))]
    for name in names:
        folder = tmp_path / name
        shutil.copytree(sharded / "step-00000020", folder)
        assert verify(folder)["progress"]["step"] == 20
        if DAMAGES[damage] is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
        with pytest.raises(StoreError, match=name.replace(".", r"\.")):
            verify(folder)


def test_two_files_that_have_changed_places_are_noticed(sharded, tmp_path):
    folder = tmp_path / "swapped"
    shutil.copytree(sharded / "step-00000020", folder)
    one, two = sorted(folder.glob("state-*"))
    one.rename(folder / "aside"), two.rename(one), (folder / "aside").rename(two)
    with pytest.raises(StoreError, match="state-00000-of-00002"):
        verify(folder)


def test_what_two_wrote_is_whole_for_one(sharded, tmp_path):
    """A damaged newest one is passed over, the one before it loaded, every tensor as both parts say."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(sharded, folder)
    (folder / "step-00000020" / "state-00001-of-00002.safetensors").unlink()
    notes = []
    saved = json.loads((folder / "step-00000011" / MANIFEST).read_text())
    kept = state.Checkpoints(folder, saved["settings"], saved["environment"], notes.append)
    net = together.model()
    optimizer, ema = optim.build(net, together.config()), Ema(net, 0.9)
    assert kept.load(net, optimizer, sharded.parent / "metrics.jsonl", ema.tensors()).step == 11
    assert len(notes) == 1 and "state-00001-of-00002" in notes[0]
    parts = [load_file(path) for path in sorted((folder / "step-00000011").glob("state-*"))]
    for name, parameter in net.named_parameters():
        rows = torch.cat([part[f"model/{name}"] for part in parts if f"model/{name}" in part])
        assert torch.equal(parameter, rows)
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert net.head.shape[0] % 2 == 1, "an uneven division is among them"
    assert int(ema.tensors()["ema_updates"]) == 11


def test_one_process_needs_no_group():
    here = parallel.ranks(Context())
    assert here.main and here.part == (0, 1) and here.slice == (0, 1)
    tensor = torch.ones(2)
    assert here.sum(tensor) is tensor and here.gather("a") == ["a"]


def test_a_process_that_was_not_started_as_one_of_several_says_so():
    with pytest.raises(MachineError, match="nobody has started it"):
        parallel.ranks(Context(processes=2))


def test_rows_and_slices_of_every_process():
    """2 x 2 x 2 x 2: each pair of part and slice once, and neighbours exchange experts."""
    layout = Layout(replicate=2, context=2, expert=2).filled(16)
    assert layout.shard == 4
    places = [parallel.Ranks(rank, 16, layout) for rank in range(16)]
    assert sorted((each.part[0], each.slice[0]) for each in places) == [
        (part, piece) for part in range(8) for piece in range(2)
    ]
    assert all(each.part[1] == 8 and each.slice[1] == 2 for each in places)
    # rank = ((replicate * rest + r) * context + c) * expert + e
    assert [each.slice[0] for each in places[:8]] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [each.part[0] for each in places[:8]] == [0, 1, 0, 1, 2, 3, 2, 3]


def test_one_process_does_not_pass_over_a_layout_for_several():
    with pytest.raises(RecipeError, match="does not fit the number of processes"):
        parallel.ranks(Context(layout=Layout(context=2)))


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match="layout does not fit"):
        Layout(replicate=2, shard=3).filled(4)
    with pytest.raises(RecipeError, match="layout does not fit"):
        Layout(context=3).filled(4)


def test_experts_that_are_not_there_cannot_be_divided():
    with pytest.raises(RecipeError, match="no experts"):
        parallel._refuse_indivisible(together.model(), Layout(expert=2))
    parallel._refuse_indivisible(together.model(experts=together.EXPERTS), Layout(expert=2))


def test_weights_of_four_bits_are_not_divided():
    net = together.model()
    net.packed = torch.nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(MachineError, match="four bits"):
        parallel._refuse_indivisible(net, Layout())


def test_the_copy_without_weights_has_shapes_and_ties_but_no_memory():
    net = together.model(experts=together.EXPERTS, tie_word_embeddings=True)
    copy = parallel._without_weights(net)
    assert copy.state_dict().keys() == net.state_dict().keys()
    assert all(each.is_meta for each in copy.state_dict().values())
    assert copy.head is copy.model.embed_tokens.weight and not net.head.is_meta
