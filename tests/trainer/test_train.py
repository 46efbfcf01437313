"""Whole runs: the files they write, how they end, and that an interrupted run ends as an unbroken run does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_run import small

from serving.engines.choose import load_engine
from spade_core.config import ConfigError
from spade_core.files.checkpoints import load
from trainer.config import TrainConfig
from trainer.config_file import to_toml
from trainer.exclusive import TrainError
from trainer.loop import Progress, dry_run, export_only, train
from trainer.networks import Networks, build
from trainer.output.state import StateError, checkpoints
from trainer.processes import Processes

REPOSITORY = Path(__file__).resolve().parents[2]


def command(config: TrainConfig, *before: str) -> subprocess.Popen[str]:
    """`spade train` as a process of its own."""
    path = Path(config.run.out).with_suffix(".toml")
    path.write_text(to_toml(config))
    python = [sys.executable, *before] if before else [sys.executable]
    return subprocess.Popen(
        [*python, "-m", "serving.cli", "train", str(path)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, out + error
    return out + error


def final_state(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(Path(config.run.out) / "checkpoints")[-1][1])


def rows(config: TrainConfig) -> list[dict[str, float]]:
    text = (Path(config.run.out) / "statistics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_writes_weights_samples_statistics_and_a_report(tmp_path: Path) -> None:
    config = small(tmp_path / "run", optim={"epochs": 1, "decay_epochs": 1})
    seen: list[Progress] = []
    result = train(config, seen.append)
    assert (result.step, result.steps, result.finished) == (8, 8, True)
    assert [p.step for p in seen] == list(range(9))
    assert [row["step"] for row in rows(config)] == [2, 4, 6, 8]
    assert [row["learning_rate"] for row in rows(config)] == pytest.approx([2e-3, 2e-3, 1.5e-3, 0.5e-3])
    with Image.open(result.folder / "samples/step-00000008.png") as grid:
        assert grid.size == (2 * 32, 6 * 32)
    html = (result.folder / "report.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 2
    assert html.count("<polyline") >= 6
    assert 'src="http' not in html
    assert list((result.folder / "tensorboard").iterdir())


def test_the_weights_are_a_checkpoint_that_serves(tmp_path: Path) -> None:
    config = small(tmp_path / "run", run={"weights_dtype": "bfloat16"})
    train(config)
    checkpoint = load(tmp_path / "run/weights.safetensors")
    assert checkpoint.config == config.model
    assert checkpoint.encoder is not None
    assert checkpoint.metadata["steps"] == "4"
    statistics = checkpoint.generator.head_0.norm_0.param_free_norm
    assert statistics.running_var is not None
    assert not torch.equal(statistics.running_var, torch.ones_like(statistics.running_var))
    engine = load_engine("torch", tmp_path / "run/weights.safetensors", "demo", "fp32", 1)
    images = engine.synthesize(np.zeros((1, 32, 32), np.uint8), None, np.zeros((1, 256), np.float32))
    assert images.shape == (1, 32, 32, 3)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    settings = {"threads": 1, "checkpoint_steps": 1, "sample_steps": 3}
    data = {"scenes": 24, "workers": 1}
    unbroken, broken = (small(tmp_path / name, data=data, run=settings) for name in ("unbroken", "broken"))
    train(unbroken)
    rng = np.random.default_rng(0)
    killed = 0
    while True:
        before = final_step(broken)
        process = command(broken)
        while process.poll() is None and final_step(broken) < before + 4:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.1)))  # any moment: in a step, in a save, in a picture
        if process.poll() is None:
            process.kill()
            killed += 1
        process.communicate()
        if final_step(broken) == 12:
            break
    assert killed >= 2
    expected, found = final_state(unbroken), final_state(broken)
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        assert torch.equal(tensor, found[key]), key
    train(broken)  # only the report is left to write
    assert [r["step"] for r in rows(broken)] == [r["step"] for r in rows(unbroken)]


def torchrun(processes: int) -> tuple[str, ...]:
    return "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)


def final_step(config: TrainConfig) -> int:
    found = checkpoints(Path(config.run.out) / "checkpoints")
    return found[-1][0] if found else 0


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_ends_a_run_with_a_checkpoint_and_a_hint(tmp_path: Path, processes: int) -> None:
    data, run = {"scenes": 4000, "workers": 1}, {"checkpoint_steps": 100_000, "threads": 1}
    config = small(tmp_path / "run", data=data, run=run)
    process = command(config, *(torchrun(processes) if processes > 1 else ()))
    try:
        while not (tmp_path / "run/statistics.jsonl").exists() or not rows(config):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)  # the loader's processes too; torchrun does so to its own
        _, error = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == (130 if processes == 1 else 1)
    assert "run the same command again to resume" in error
    assert final_step(config) >= 2


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    model, settings = {"height": 64, "width": 64}, {"threads": 1, "checkpoint_steps": 1}
    alone = small(tmp_path / "alone", model=model, optim={"batch": 4}, run=settings)
    # The KL divergence is a sum over a process's own images: half as many, twice the weight.
    loss = {"kl": 2 * alone.loss.kl}
    shared = small(tmp_path / "shared", model=model, optim={"batch": 2}, loss=loss, run=settings)
    finish(command(alone))
    finish(command(shared, *torchrun(2)))
    assert final_step(alone) == final_step(shared) == 2
    (own,), (means,) = rows(alone), rows(shared)
    for name in ("gan", "feature_matching", "pixel", "kl", "discriminator", "score_real", "score_fake"):
        assert means[name] == pytest.approx(own[name], rel=1e-3, abs=1e-5), "a row holds means over all processes"
    start, compared, moved = build(alone, Processes(0, 1, torch.device("cpu"))), 0, 0
    first, expected, found = (
        load_file(tmp_path / run / f"checkpoints/step-0000000{step}.safetensors")
        for run, step in (("alone", 1), ("alone", 2), ("shared", 2))
    )
    first_found = load_file(tmp_path / "shared/checkpoints/step-00000001.safetensors")
    for side in ("generator", "discriminator"):
        largest = max(float(g.abs().max()) for k, g in first.items() if is_gradient(k, side))
        for i, (name, parameter) in enumerate(parameters(start, side)):
            # Adam divides a gradient by its size: where it is all rounding (a bias before a norm), chance decides, and
            # reaches the second gradient.
            gradient = f"adam.{side}.{i}.exp_avg"
            assert float((first[gradient] - first_found[gradient]).abs().max()) <= 2e-5 * largest, name
            assert float((expected[gradient] - found[gradient]).abs().max()) <= 1e-3 * largest, name
            firm = (first[gradient].abs() > 1e-3 * largest) & (expected[gradient].abs() > 1e-2 * largest)
            assert not ((expected[name] - found[name]).abs()[firm] > 0.05 * alone.optim.lr).any(), name
            moved += int(((expected[name] - parameter).abs()[firm] > 0.2 * alone.optim.lr).sum())
            compared += int(firm.sum())
    assert compared > 2000
    assert moved > compared / 2
    for name, tensor in first.items():
        if name.startswith("generator.") and name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(first_found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def is_gradient(key: str, side: str) -> bool:
    """Adam's first moment: with beta1 = 0, the gradient of the last step."""
    return key.startswith(f"adam.{side}.") and key.endswith(".exp_avg")


def parameters(networks: Networks, side: str) -> list[tuple[str, torch.Tensor]]:
    """(name in a checkpoint, value) in the order of that side's optimiser."""
    sides = [(n, m) for n, m in networks.trained() if (n == "discriminator") == (side == "discriminator")]
    return [(f"{n}.{key}", p.detach()) for n, m in sides for key, p in m.named_parameters()]


def test_a_dry_run_takes_a_step_and_writes_nothing(tmp_path: Path) -> None:
    facts = dry_run(small(tmp_path / "run"))
    assert facts["steps"] == "4"
    assert "generator" in facts
    assert not (tmp_path / "run").exists()


def test_weights_of_the_newest_checkpoint_can_be_written_again(tmp_path: Path) -> None:
    config = small(tmp_path / "run")
    with pytest.raises(TrainError, match=r"expected a checkpoint in '.*run/checkpoints' but found none; train first"):
        export_only(config)
    train(config)
    before = load_file(tmp_path / "run/weights.safetensors")
    (tmp_path / "run/weights.safetensors").unlink()
    after = load_file(export_only(config))
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_a_folder_keeps_its_networks_and_says_other_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(small(tmp_path / "run"))
    with pytest.raises(StateError, match=r"but got model.nf: 2 -> 4; give another run.out to start a new run"):
        train(small(tmp_path / "run", model={"nf": 4}))
    longer = small(tmp_path / "run", optim={"epochs": 2})
    assert train(longer).step == 8
    assert "optim.epochs: 1 -> 2" in caplog.text


def test_runs_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="expected at least one step but got 8 images for steps of 16"):
        train(small(tmp_path / "run", optim={"batch": 16}))
    with pytest.raises(ConfigError, match=r"expected optim.accumulate to be 1 or more but got 0"):
        small(optim={"accumulate": 0})
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"expected a CUDA GPU for run.device 'cuda'"):
            train(small(tmp_path / "run", run={"device": "cuda"}))


def test_divergence_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"expected finite losses but got .*nan.* at step \d+: training diverged"):
        train(small(tmp_path / "run", optim={"lr": 1e30, "epochs": 3}))


@pytest.mark.slow
def test_divergence_ends_every_process(tmp_path: Path) -> None:
    config = small(tmp_path / "run", optim={"lr": 1e30, "epochs": 3}, run={"threads": 1})
    process = command(config, *torchrun(2))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error.count("training diverged; lower optim.lr") == 2, error
