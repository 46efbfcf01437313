"""Gradients of one training step in as many processes as asked for; `test_processes` starts this file."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch._dynamo  # optimisers import it, which takes seconds: once here, and not in each process
from safetensors.torch import save_file
from small_run import small

from trainer.config import TrainConfig
from trainer.data.dataset import Batch, Positions, Stream, loader
from trainer.networks import build
from trainer.processes import join, leave, means_over
from trainer.step import train_step
from trainer.training import Moment, Training, optimisers

PASSES = 4  # of a step, over all processes


def settings(world: int, updates: str) -> TrainConfig:
    """Instance norm and no spectral norm: a pass then depends on its own images and the weights alone."""
    return small(
        model={"norm": "instance", "height": 64, "width": 64},
        networks={"spectral_norm": False},
        loss={"kl": 100.0},
        optim={"accumulate": PASSES // world, "updates": updates},
    )


def draw_scenes(config: TrainConfig, world: int, rank: int) -> list[Batch]:
    """The batches of process `rank`."""
    positions = Positions(0, PASSES * config.optim.batch, rank, world, config.optim.batch)
    return list(loader(Stream(config), config, positions, 0))


def train(folder: Path, world: int, rank: int, updates: str) -> None:
    """One step of process `rank`; the first process writes its gradients and the means of its losses."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    config = settings(world, updates)
    processes = join("cpu")
    networks = build(config, processes)
    training = Training(networks, optimisers(networks, config.optim, world), None, config, processes)
    statistics = train_step(training, draw_scenes(config, world, rank), Moment())
    means = means_over({name: float(value) for name, value in statistics.items()}, world)
    if rank == 0:
        gradients = {  # beta1 = 0: Adam's first moment is the gradient
            f"{side}.{i}": adam.state[parameter]["exp_avg"].contiguous()
            for side, adam in training.optimisers.items()
            for i, parameter in enumerate(adam.param_groups[0]["params"])
        }
        save_file(gradients, folder / f"{updates}-{world}.safetensors")
        (folder / f"{updates}-{world}.json").write_text(json.dumps(means))
    leave()


if __name__ == "__main__":
    torch.set_num_threads(1)  # a process with threads cannot be forked
    draw_scenes(settings(1, "shared"), 1, 0)  # the tables of noise are made once, and not in each process
    fork = multiprocessing.get_context("fork")  # PyTorch is imported once, and has started no thread
    for at, (world, updates) in enumerate((w, u) for w in (1, 2, 4) for u in ("shared", "alternating")):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(int(sys.argv[2]) + at)}
        ranks = [fork.Process(target=train, args=(Path(sys.argv[1]), world, rank, updates)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            sys.exit(f"a process of {world} failed")
