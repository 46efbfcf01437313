"""Several training processes as one: gradients are averaged over them, batch norm sees the images of all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_grad
from torch import Tensor, nn

from kernels.constants import EPSILON

MESSAGE_BYTES = 16 << 20  # of gradients: large for the network's speed, small so that several are on the way


@dataclass(frozen=True)
class Processes:
    """This process among all: `rank` of `world`, on `device`."""

    rank: int
    world: int
    device: torch.device


def device_kind(device: str) -> str:
    """The device, `cpu` or `cuda`, that run.device (`auto`, `cpu` or `cuda`) is on this machine."""
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def join(device: str) -> Processes:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK); without torchrun, train alone.

    NCCL connects GPUs, gloo connects tensors on the CPU. Raises RuntimeError where cuda is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("[train] expected a CUDA GPU for run.device 'cuda' but PyTorch sees none; take cpu or auto")
    kind = device_kind(device)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device(kind, local) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(where)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    return Processes(int(os.environ.get("RANK", "0")), world, where)


@contextmanager
def said_once(processes: Processes) -> Iterator[None]:
    """Let only the first process log warnings, where all processes read the same files and would say the same."""
    if processes.rank == 0:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def leave() -> None:
    """Leave the processes that `join` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


class GradientMessages:
    """Means of gradients over all processes, sent while the backward pass goes on.

    A message holds some megabytes of gradients, last parameters first, as a backward pass makes them. A message goes
    out once its gradients and all messages before it are there, so all processes send the same messages in the same
    order. They have a process group of their own, since batch norm's messages come in between in no fixed order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world: int, message_bytes: int = MESSAGE_BYTES) -> None:
        self._messages: list[list[nn.Parameter]] = [[]]
        self._message_of: dict[nn.Parameter, int] = {}
        self._sending = False
        self._missing: list[int] = []
        self._works: list[tuple[Tensor, dist.Work]] = []
        self._world = world
        if world == 1:
            return
        self._group = dist.new_group()
        for parameter in reversed(list(parameters)):
            if sum(p.nbytes for p in self._messages[-1]) >= message_bytes:
                self._messages.append([])
            self._messages[-1].append(parameter)
            self._message_of[parameter] = len(self._messages) - 1
            parameter.register_post_accumulate_grad_hook(self._ready)  # type: ignore[no-untyped-call]

    @contextmanager
    def sent(self) -> Iterator[None]:
        """Around the last backward pass of a step: on leaving, every gradient is the mean over all processes."""
        if self._world == 1:
            yield
            return
        self._missing = [len(message) for message in self._messages]
        self._sending = True
        try:
            yield
        finally:
            self._sending = False
        while len(self._works) < len(self._messages):  # a parameter without a gradient held these messages up
            self._send()
        for message, (flat, work) in zip(self._messages, self._works, strict=True):
            work.wait()
            flat /= self._world
            gradients = [p.grad for p in message if p.grad is not None]
            for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        self._works.clear()

    def _ready(self, parameter: nn.Parameter) -> None:
        if not self._sending:
            return
        self._missing[self._message_of[parameter]] -= 1
        while len(self._works) < len(self._messages) and self._missing[len(self._works)] == 0:
            self._send()

    def _send(self) -> None:
        gradients = [p.grad.reshape(-1) for p in self._messages[len(self._works)] if p.grad is not None]
        flat = torch.cat(gradients) if gradients else torch.empty(0)
        work = dist.all_reduce(flat, group=self._group, async_op=True)
        assert work is not None
        self._works.append((flat, work))


def any_of(asked: bool, world: int) -> bool:
    """Whether at least one process is asked; every process gets the same answer."""
    if world == 1:
        return asked
    count = torch.tensor(int(asked))  # on the CPU: no GPU is waited for
    dist.all_reduce(count)
    return bool(count)


def means_over(values: dict[str, float], world: int) -> dict[str, float]:
    """Means over all processes of values that all processes have by the same names."""
    if world == 1:
        return values
    sums = torch.tensor(list(values.values()), dtype=torch.float64)  # on the CPU: gloo sends it
    dist.all_reduce(sums)
    return dict(zip(values, (sums / world).tolist(), strict=True))


def same_everywhere(modules: Iterable[nn.Module], world: int) -> None:
    """Give every process the weights of the first."""
    if world > 1:
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device; PyTorch's SyncBatchNorm runs on GPUs only.

    All processes must hold batches of the same shape. Keys are `nn.BatchNorm2d`'s.
    """

    def __init__(self, channels: int, affine: bool = False) -> None:
        super().__init__(channels, eps=EPSILON, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, h, w] normalised by the statistics of all processes; in eval mode by the running statistics."""
        if not self.training:
            return super().forward(x)
        world = dist.get_world_size()
        wide = x.float()
        mean = _sum(wide.mean((0, 2, 3))) / world  # [C]
        centred = wide - mean[None, :, None, None]
        variance = _sum(centred.square().mean((0, 2, 3))) / world
        self._track(mean.detach(), variance.detach(), x.numel() // x.shape[1] * world)
        out = centred * torch.rsqrt(variance + self.eps)[None, :, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), rate)


def synchronise_norms(module: nn.Module) -> None:
    """Replace the batch norms of a generator by `SyncBatchNorm` under the same keys."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = SyncBatchNorm(child.num_features, child.affine)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            synchronise_norms(child)


def _sum(tensor: Tensor) -> Tensor:
    """The sum over all processes. Its gradient is the sum of the processes' gradients."""
    total: Tensor = dist_grad.all_reduce(tensor)  # type: ignore[no-untyped-call]
    return total
