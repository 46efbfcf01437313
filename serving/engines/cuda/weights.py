"""A generator's weights as the CUDA program reads them, folded and converted once at load."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serving.engines.cpu.pack import walk
from spade_core.codebook.fold import fold
from spade_core.config import GeneratorConfig
from spade_core.models.generator import Generator
from spade_core.models.spade import SPADE, ResidualBlock
from spade_core.models.symbol_table import symbol_table


@dataclass(frozen=True)
class CudaNorm:
    """One SPADE norm. Running statistics, and biases that the preceding convs left out, are folded in.

    Attributes:
        table: T [k*k, symbols + 1, 128]. shared_bias: float32 [128].
        weight: T [2C, k*k * 128]. bias: float32 [2C].
        instance: instance norm: the program normalises x before the modulation.
    """

    channels: int
    table: Tensor
    shared_bias: Tensor
    weight: Tensor
    bias: Tensor
    instance: bool


@dataclass(frozen=True)
class CudaBlock:
    """One residual block.

    Attributes:
        level: index of the block's resolution level.
        shift: 1 if the block's input is upsampled by 2 first, else 0.
        conv_0, conv_1, conv_s: weights T [Co, Ci, k, k], channels last. Maps leave out the biases; the norms and the
            image's conv, which read the maps, add them.
    """

    level: int
    shift: int
    norm_0: CudaNorm
    conv_0: Tensor
    norm_1: CudaNorm
    conv_1: Tensor
    norm_s: CudaNorm | None
    conv_s: Tensor | None

    @property
    def norms(self) -> tuple[CudaNorm, ...]:
        """The norms in the order in which they run."""
        return tuple(norm for norm in (self.norm_0, self.norm_s, self.norm_1) if norm is not None)


@dataclass(frozen=True)
class CudaWeights:
    """All weights of a generator.

    Attributes:
        fc: a copy of the generator's fc in T, if the generator starts from a style; else None.
        table, table_bias: fc as a symbol table, T [9, symbols + 1, 16 nf], and its bias, float32 [16 nf], if the
            generator starts from the label map; else None.
        conv_img: T [3, C, 3, 3], channels last.
        image_bias: float32 [3].
        constant: float32 [C], the biases that the last block's map leaves out.
    """

    config: GeneratorConfig
    dtype: torch.dtype
    device: torch.device
    fc: nn.Linear | None
    table: Tensor | None
    table_bias: Tensor | None
    blocks: tuple[CudaBlock, ...]
    conv_img: Tensor
    image_bias: Tensor
    constant: Tensor


@dataclass(frozen=True)
class _Target:
    """What weights are converted for."""

    config: GeneratorConfig
    dtype: torch.dtype
    device: torch.device


@torch.no_grad()
def cuda_weights(generator: Generator, dtype: torch.dtype, device: torch.device) -> CudaWeights:
    """The weights of a float32 generator in eval mode, converted to `dtype` and moved to `device`. Copies only."""
    target = _Target(generator.config, dtype, device)
    fc = table = table_bias = None
    if isinstance(generator.fc, nn.Linear):
        fc = nn.Linear(generator.fc.in_features, generator.fc.out_features).to(device, dtype)
        fc.load_state_dict(generator.fc.state_dict())
    else:
        assert isinstance(generator.fc, nn.Conv2d)
        assert generator.fc.bias is not None
        table = _table(generator.fc.weight, target)
        table_bias = generator.fc.bias.float().to(device)
    blocks, constant = [], None
    for block, level, shift in walk_blocks(generator):
        blocks.append(_block(block, level, shift, constant, target))
        constant = _left_out(block, constant)
    assert constant is not None
    assert generator.conv_img.bias is not None
    return CudaWeights(
        generator.config, dtype, device, fc, table, table_bias, tuple(blocks), _conv(generator.conv_img, target),
        generator.conv_img.bias.float().to(device), constant.float().to(device),
    )  # fmt: skip


def walk_blocks(generator: Generator) -> list[tuple[ResidualBlock, int, int]]:
    """The blocks in the order in which they run, each with its level and with 1 where an upsampling comes first."""
    blocks = []
    for name, level, shift in walk(generator.config):
        block = generator.get_submodule(name)
        assert isinstance(block, ResidualBlock)
        blocks.append((block, level, shift))
    return blocks


def _left_out(block: ResidualBlock, constant: Tensor | None) -> Tensor | None:
    """The biases that a block's output leaves out, float64 [C], if its input leaves out `constant`; None: no biases."""
    shortcut = constant if block.conv_s is None else block.conv_s.bias
    parts = [part.double() for part in (shortcut, block.conv_1.bias) if part is not None]
    return torch.stack(parts).sum(0) if parts else None


def _block(block: ResidualBlock, level: int, shift: int, constant: Tensor | None, target: _Target) -> CudaBlock:
    return CudaBlock(
        level,
        shift,
        _norm(block.norm_0, constant, target),
        _conv(block.conv_0, target),
        _norm(block.norm_1, block.conv_0.bias, target),
        _conv(block.conv_1, target),
        _norm(block.norm_s, constant, target) if block.norm_s is not None else None,
        _conv(block.conv_s, target) if block.conv_s is not None else None,
    )


def _norm(spade: SPADE, left_out: Tensor | None, target: _Target) -> CudaNorm:
    """The norm of a map that leaves out the biases `left_out`."""
    folded = fold(spade, target.config, torch.float32)
    weight, bias, channels = folded.weight, folded.bias, spade.mlp_gamma.out_channels
    # a (x + c) + b = a x + (a c + b). Instance norm removes every constant, so there is nothing to add.
    if left_out is not None and folded.norm is None:
        a_weight, b_weight = weight.double().chunk(2, dim=1)
        a_bias, b_bias = bias.double().chunk(2)
        constant = left_out.double()
        weight = torch.cat([a_weight, b_weight + a_weight * constant], dim=1)
        bias = torch.cat([a_bias, b_bias + a_bias * constant])
    shared = spade.mlp_shared[0]
    assert isinstance(shared, nn.Conv2d)
    return CudaNorm(
        channels,
        _table(shared.weight, target),
        folded.shared_bias.float().to(target.device),
        weight.T.to(target.device, target.dtype).contiguous(),
        bias.float().to(target.device),
        instance=folded.norm is not None,
    )


def _table(weight: Tensor, target: _Target) -> Tensor:
    taps, depth = weight.shape[2] * weight.shape[3], weight.shape[0]
    table = symbol_table(weight, target.config).view(taps, target.config.symbols + 1, depth)
    return table.to(target.device, target.dtype).contiguous()


def _conv(conv: nn.Conv2d, target: _Target) -> Tensor:
    return conv.weight.detach().to(target.device, target.dtype).contiguous(memory_format=torch.channels_last)
