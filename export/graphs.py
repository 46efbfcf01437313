"""The two modules that become ONNX graphs: dense, and codebook with the plan's tensors as inputs.

Both take their parameters from `spade_core.codebook.fold.fold`, which folds batch-norm statistics and the 1 of
1 + gamma into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import DONT_CARE, HIDDEN
from spade_core.codebook.entries import LevelTensors
from spade_core.codebook.fold import fold
from spade_core.config import GeneratorConfig
from spade_core.models.generator import Generator
from spade_core.models.spade import SPADE

ImageKind = Literal["uint8", "float"]

DOMAIN = "spade"  # of the modulate step
NAMESPACE = "plugin_namespace"  # the attribute that makes TensorRT's parser look for a plugin


class CodebookNorm(nn.Module):
    """`spade_core.codebook.fold.Folded` as buffers of one dtype, so that the graph names them."""

    table: Tensor  # [k*k * (symbols + 1), 128]
    shared_bias: Tensor  # [128]
    weight: Tensor  # [k*k * 128, 2C]
    bias: Tensor  # [2C]

    def __init__(self, spade: SPADE, config: GeneratorConfig, dtype: torch.dtype) -> None:
        super().__init__()
        folded = fold(spade, config, dtype)
        for name in ("table", "shared_bias", "weight", "bias"):
            self.register_buffer(name, getattr(folded, name).detach().contiguous())
        self.norm = folded.norm or nn.Identity()


class DenseNorm(nn.Module):
    """The parameters of a norm as convs on one-hot maps. a and b have a conv each, with which runtimes fuse a*x + b."""

    shared_weight: Tensor  # [128, semantic_nc, k, k]
    shared_bias: Tensor  # [128]
    weight_a: Tensor  # [C, 128, k, k], and weight_b
    weight_b: Tensor
    bias_a: Tensor  # [C], and bias_b
    bias_b: Tensor

    def __init__(self, spade: SPADE, config: GeneratorConfig, dtype: torch.dtype) -> None:
        super().__init__()
        folded, k = fold(spade, config, dtype), config.spade_kernel
        shared = spade.mlp_shared[0]
        assert isinstance(shared, nn.Conv2d)
        weight = folded.weight.view(k, k, HIDDEN, -1).permute(3, 2, 0, 1)  # [2C, 128, k, k]
        self.register_buffer("shared_weight", shared.weight.detach().to(dtype))
        self.register_buffer("shared_bias", folded.shared_bias.detach())
        halves = zip("ab", weight.detach().chunk(2), folded.bias.detach().chunk(2), strict=True)
        for name, half, bias in halves:
            self.register_buffer(f"weight_{name}", half.contiguous())
            self.register_buffer(f"bias_{name}", bias.contiguous())
        self.norm = folded.norm or nn.Identity()


class DenseGraph(nn.Module):
    """Label maps to images, as the paper writes SPADE. The graph changes the generator: pass a copy.

    Inputs: labels uint8 [N, H, W]; instances int32 [N, H, W] and style float32 [N, 256] where the configuration has
    them. Labels are not checked; an unknown id sets no channel.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype, image: ImageKind) -> None:
        super().__init__()
        self.config, self.dtype, self.image = generator.config, dtype, image
        self.generator = _with_folded(generator, DenseNorm, dtype)

    def forward(self, labels: Tensor, instances: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        config = self.config
        # Floating point, since TensorRT converts uint8 to nothing else.
        ids = labels.to(torch.float32)
        if config.dont_care:
            ids = torch.where(ids == DONT_CARE, float(config.label_nc), ids)
        edges = None if instances is None else _edges(instances, self.dtype)
        segmaps: dict[int, Tensor] = {}

        def segmap(height: int) -> Tensor:
            if height not in segmaps:
                step = labels.shape[1] // height  # NEAREST by a whole factor: source row = i * step
                segmaps[height] = _one_hot(ids, edges, step, config.classes, self.dtype)
            return segmaps[height]

        def normalise(spade: SPADE, x: Tensor) -> Tensor:
            norm = spade.folded
            assert isinstance(norm, DenseNorm)
            pad = config.spade_kernel // 2
            actv = F.relu(F.conv2d(segmap(x.shape[2]), norm.shared_weight, norm.shared_bias, padding=pad))
            a = F.conv2d(actv, norm.weight_a, norm.bias_a, padding=pad)  # [N, C, h, w]
            b = F.conv2d(actv, norm.weight_b, norm.bias_b, padding=pad)
            out: Tensor = a * norm.norm(x) + b
            return out

        if style is not None:
            start = self.generator.style_start(style.to(self.dtype))
        else:
            start = self.generator.fc(segmap(labels.shape[1] >> config.upsamplings))
        return _finish(self.generator(start, normalise), self.image)


class CodebookGraph(nn.Module):
    """A plan to images: gamma and beta once per distinct patch, read through the index.

    The graph changes the generator: pass a copy. Inputs:
    start: style float32 [N, 256] or, without a style input, symbols int32 [N, h0, w0] of the start size.
    levels: patches3 int32 [U3, k*k], patches5 int32 [U5, k*k], index int32 [N, h, w] of each level, smallest first.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype, image: ImageKind) -> None:
        super().__init__()
        self.config, self.dtype, self.image = generator.config, dtype, image
        self.generator = _with_folded(generator, CodebookNorm, dtype)

    def forward(self, start: Tensor, levels: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        by_height = {index.shape[1]: LevelTensors(p3, p5, index) for p3, p5, index in levels}

        def normalise(spade: SPADE, x: Tensor) -> Tensor:
            norm, level = spade.folded, by_height[x.shape[2]]
            assert isinstance(norm, CodebookNorm)
            return modulate(norm.norm(x), _entries(norm, level), level.index)

        if self.config.style:
            x = self.generator.style_start(start.to(self.dtype))
        else:
            x = self.generator.fc(_symbols_one_hot(start, self.config, self.dtype))
        return _finish(self.generator(x, normalise), self.image)


def _with_folded(generator: Generator, kind: type[nn.Module], dtype: torch.dtype) -> Generator:
    """The same generator in `dtype`, where each SPADE has a `folded` of class `kind` in place of its convs and norm."""
    for spade in [module for module in generator.modules() if isinstance(module, SPADE)]:
        spade.folded = kind(spade, generator.config, dtype)
        del spade.mlp_shared, spade.mlp_gamma, spade.mlp_beta, spade.param_free_norm
    return generator.to(dtype)


def modulate(x: Tensor, entries: Tensor, index: Tensor) -> Tensor:
    """a[index] * x + b[index] as a node spade::Modulate: x [N, C, h, w], entries [U5, 2C], index [N, h, w]."""
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::Modulate", (x, entries, index), attrs={NAMESPACE: DOMAIN}, dtype=x.dtype, shape=x.shape, version=1
    )


def _entries(norm: CodebookNorm, level: LevelTensors) -> Tensor:
    taps = level.patches3.shape[1]
    offsets = torch.arange(taps, dtype=torch.int32) * (norm.table.shape[0] // taps)
    hidden = F.embedding(level.patches3 + offsets, norm.table).sum(dim=1)  # [U3, 128]
    actv = F.relu(hidden + norm.shared_bias)
    actv = torch.cat([actv, torch.zeros_like(norm.shared_bias)[None]])  # [U3 + 1, 128]: the last row is outside
    gathered = F.embedding(level.patches5, actv).flatten(1)  # [U5, k*k * 128]
    return torch.addmm(norm.bias, gathered, norm.weight)  # [U5, 2C]


def _one_hot(ids: Tensor, edges: Tensor | None, step: int, classes: int, dtype: torch.dtype) -> Tensor:
    """Ids float32 [N, H, W] and edges [N, H, W], every `step`-th pixel -> one-hot [N, semantic_nc, h, w]."""
    channels = torch.arange(classes, dtype=ids.dtype)[None, :, None, None]
    segmap = (ids[:, None, ::step, ::step] == channels).to(dtype)
    return segmap if edges is None else torch.cat([segmap, edges[:, None, ::step, ::step]], dim=1)


def _symbols_one_hot(symbols: Tensor, config: GeneratorConfig, dtype: torch.dtype) -> Tensor:
    """Symbols int32 [N, h, w] -> one-hot [N, semantic_nc, h, w]."""
    ids = symbols.to(torch.float32)
    if not config.instance_edges:
        return _one_hot(ids, None, 1, config.classes, dtype)
    labels = torch.floor(ids / 2)
    return _one_hot(labels, (ids - 2 * labels).to(dtype), 1, config.classes, dtype)


def _edges(instances: Tensor, dtype: torch.dtype) -> Tensor:
    """Instance ids int32 [N, H, W] -> [N, H, W], 1 where an id differs from a neighbour's id, else 0."""
    across = (instances[:, :, 1:] != instances[:, :, :-1]).to(dtype)
    down = (instances[:, 1:, :] != instances[:, :-1, :]).to(dtype)
    sides = (F.pad(across, (1, 0)), F.pad(across, (0, 1)), F.pad(down, (0, 0, 1, 0)), F.pad(down, (0, 0, 0, 1)))
    return (sum(sides[1:], sides[0]) > 0).to(dtype)


def _finish(x: Tensor, image: ImageKind) -> Tensor:
    """The image before tanh [N, 3, H, W] -> float32 [N, 3, H, W] in -1..1, or uint8 [N, H, W, 3], truncated."""
    x = torch.tanh(x.to(torch.float32))
    if image == "float":
        return x
    # The cast comes last, since TensorRT has uint8 only as a network's input or output.
    return ((x + 1) * 127.5).permute(0, 2, 3, 1).to(torch.uint8)
