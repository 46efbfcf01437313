"""Checkpoints of a run: they restore everything, the last ones are kept, and faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_run import small

from spade_core.files.checkpoints import CheckpointError
from trainer.config import TrainConfig
from trainer.data.dataset import Positions, Stream, loader
from trainer.networks import Networks, build
from trainer.output.parts import read_parts
from trainer.output.state import StateError, checkpoints, load_state, save_state
from trainer.processes import Processes
from trainer.step import train_step
from trainer.training import Moment, Optimisers, Training, optimisers

ALONE = Processes(0, 1, torch.device("cpu"))


def trained(config: TrainConfig) -> tuple[Networks, Optimisers]:
    networks = build(config, ALONE)
    adam = optimisers(networks, config.optim)
    batches = list(loader(Stream(config), config, Positions(0, 2, 0, 1, 2), 0))
    train_step(Training(networks, adam, None, config, ALONE), batches, Moment())
    return networks, adam


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    config = small()
    networks, adam = trained(config)
    path = save_state(tmp_path, networks, adam, step=1, images=2, keep=3)
    fresh = build(small(run={"seed": 9}), ALONE)
    fresh_adam = optimisers(fresh, config.optim)
    assert load_state(path, fresh, fresh_adam) == (1, 2)
    for (_, module), (_, other) in zip(networks.everything(), fresh.everything(), strict=True):
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[key]), key
    for (_, side), (_, other_side) in zip(adam.items(), fresh_adam.items(), strict=True):
        for mine, theirs in zip(side.state.values(), other_side.state.values(), strict=True):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_the_last_ones_are_kept_and_a_draft_is_not_one(tmp_path: Path) -> None:
    networks, adam = trained(small())
    (tmp_path / ".step-00000009.safetensors.tmp").write_bytes(b"half")
    for step in (1, 2, 3, 4):
        save_state(tmp_path, networks, adam, step, 2 * step, keep=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [3, 4]
    assert not list(tmp_path.glob(".*")), "the draft of a killed run is removed"


def test_a_checkpoint_in_parts_is_the_checkpoint_in_one_file(tmp_path: Path) -> None:
    networks, adam = trained(small())
    whole = save_state(tmp_path / "whole", networks, adam, 1, 2, keep=2)
    for step in (1, 2, 3):
        path = save_state(tmp_path / "parts", networks, adam, step, 2, keep=2, part_mb=1)
    files = sorted((tmp_path / "parts").iterdir())
    assert [step for step, _ in checkpoints(tmp_path / "parts")] == [2, 3]
    assert not [file for file in files if file.name.startswith("step-00000001")], "its parts go with a checkpoint"
    of_last = [file for file in files if file.name.startswith("step-00000003")]
    assert len(of_last) > 2
    biggest = max(tensor.nbytes for _, module in networks.everything() for tensor in module.state_dict().values())
    assert all(file.stat().st_size < max(1_000_000, biggest) + 100_000 for file in of_last), "a header beside tensors"
    header, tensors = read_parts(path)
    assert header == read_parts(whole)[0] | {"step": "3"}
    for key, tensor in read_parts(whole)[1].items():
        assert torch.equal(tensor, tensors[key]), key
    fresh, config = build(small(run={"seed": 9}), ALONE), small()
    assert load_state(path, fresh, optimisers(fresh, config.optim)) == (3, 2)


def test_parts_of_a_killed_run_are_no_checkpoint(tmp_path: Path) -> None:
    networks, adam = trained(small())
    save_state(tmp_path, networks, adam, 1, 2, keep=2, part_mb=1)
    (tmp_path / "step-00000001.safetensors").rename(tmp_path / "gone")  # killed before the last file
    assert checkpoints(tmp_path) == []
    path = save_state(tmp_path, networks, adam, 2, 4, keep=2, part_mb=1)
    assert not list(tmp_path.glob("step-00000001*"))
    (tmp_path / "step-00000002.part-001.safetensors").unlink()
    with pytest.raises(StateError, match="expected a whole checkpoint but got"):
        load_state(path, networks, adam)


def test_a_diverged_network_pushes_no_checkpoint_out(tmp_path: Path) -> None:
    networks, adam = trained(small())
    save_state(tmp_path, networks, adam, 1, 2, keep=1)
    next(networks.discriminator.parameters()).data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"\[train\] expected finite weights .* in discriminator\."):
        save_state(tmp_path, networks, adam, 2, 4, keep=1)
    assert [step for step, _ in checkpoints(tmp_path)] == [1]


def test_faults_are_named(tmp_path: Path) -> None:
    networks, adam = trained(small())
    path = save_state(tmp_path, networks, adam, 1, 2, keep=3)
    other = build(small(model={"nf": 4}), ALONE)
    with pytest.raises(StateError, match=r"faults: .*generator.* is \[.*; give another run.out"):
        load_state(path, other, optimisers(other, small().optim))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        StateError, match=r"expected a whole checkpoint but got .*delete it to resume from the one before"
    ):
        load_state(path, networks, adam)
    with pytest.raises(StateError, match=r"expected to write '/dev/null/x/step-00000001.safetensors'"):
        save_state(Path("/dev/null/x"), networks, adam, 1, 2, keep=3)
