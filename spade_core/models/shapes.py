"""The shapes of the tensors in a checkpoint, by key, told by the configuration. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from kernels.constants import HIDDEN
from spade_core.config import STYLE_DIM, GeneratorConfig

Shapes = Mapping[str, tuple[int, ...]]


def block_widths(config: GeneratorConfig) -> dict[str, tuple[int, int]]:
    """(channels in, channels out) of every residual block of a SPADE generator, in the order in which they run."""
    nf = config.nf
    widths = {
        "head_0": (16 * nf, 16 * nf),
        "G_middle_0": (16 * nf, 16 * nf),
        "G_middle_1": (16 * nf, 16 * nf),
        "up_0": (16 * nf, 8 * nf),
        "up_1": (8 * nf, 4 * nf),
        "up_2": (4 * nf, 2 * nf),
        "up_3": (2 * nf, nf),
    }
    return widths | ({"up_4": (nf, nf // 2)} if config.upsampling == "most" else {})


def generator_shapes(config: GeneratorConfig) -> Shapes:
    """Every tensor of a SPADE generator, in the order of its modules."""
    return dict(_generator(config))


def encoder_shapes(nf: int) -> Shapes:
    """Every tensor of a style encoder whose first conv has `nf` channels."""
    widths = (3, nf, 2 * nf, 4 * nf, 8 * nf, 8 * nf, 8 * nf)
    shapes = {f"layer{i}.0.weight": (fout, fin, 3, 3) for i, (fin, fout) in enumerate(pairwise(widths), 1)}
    heads = {
        f"{head}.{part}": shape
        for head in ("fc_mu", "fc_var")
        for part, shape in (("weight", (STYLE_DIM, 8 * nf * 16)), ("bias", (STYLE_DIM,)))
    }
    return shapes | heads


def encoder_nf(shapes: Shapes) -> int:
    """Width of an encoder's first conv, told by its shape, or by the shape of fc_mu, a Linear(8 nf * 16); else 64."""
    first, mean = shapes.get("layer1.0.weight", ()), shapes.get("fc_mu.weight", ())
    if len(first) == 4:
        return max(1, first[0])
    return max(1, mean[1] // 128) if len(mean) == 2 else 64


def _generator(config: GeneratorConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    channels, (h0, w0) = 16 * config.nf, config.level_sizes[0]
    if config.style:
        yield from _layer("fc", (channels * h0 * w0, STYLE_DIM))
    else:
        yield from _layer("fc", (channels, config.semantic_nc, 3, 3))
    last = channels
    for name, (fin, fout) in block_widths(config).items():
        yield from _block(name, fin, fout, config)
        last = fout
    yield from _layer("conv_img", (3, last, 3, 3))


def _block(name: str, fin: int, fout: int, config: GeneratorConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    fmid = min(fin, fout)
    yield from _layer(f"{name}.conv_0", (fmid, fin, 3, 3))
    yield from _layer(f"{name}.conv_1", (fout, fmid, 3, 3))
    yield from _spade(f"{name}.norm_0", fin, config)
    yield from _spade(f"{name}.norm_1", fmid, config)
    if fin != fout:
        yield f"{name}.conv_s.weight", (fout, fin, 1, 1)
        yield from _spade(f"{name}.norm_s", fin, config)


def _spade(name: str, channels: int, config: GeneratorConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    k = config.spade_kernel
    if config.norm != "instance":
        yield f"{name}.param_free_norm.running_mean", (channels,)
        yield f"{name}.param_free_norm.running_var", (channels,)
    yield from _layer(f"{name}.mlp_shared.0", (HIDDEN, config.semantic_nc, k, k))
    yield from _layer(f"{name}.mlp_gamma", (channels, HIDDEN, k, k))
    yield from _layer(f"{name}.mlp_beta", (channels, HIDDEN, k, k))


def _layer(name: str, weight: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]
