"""The style encoder in NumPy: `spade_core.models.encoder.StyleEncoder` for one photo, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kernels.constants import EPSILON, SLOPE
from kernels.layouts import Float32

LAYERS = 6  # stride-2 convs: 256x256 becomes 4x4
ENCODER_SIZE = 2**LAYERS * 4


def encode(encoder: Mapping[str, Float32], pixels: Float32) -> tuple[Float32, Float32]:
    """Encode a photo [3, H, W] in -1..1: mean and log-variance of its style, each [256].

    Six convs of stride 2, each with instance norm and a leaky ReLU, then two linear heads (SPADE paper, figure 14).
    `encoder` holds the arrays that `spade_core.models.shapes.encoder_shapes` lists.
    """
    x = resized(pixels, ENCODER_SIZE)
    for i in range(1, LAYERS + 1):
        x = _conv(x, encoder[f"layer{i}.0.weight"])  # [C, h, w]
        mean = x.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        variance = x.var(axis=(1, 2), keepdims=True, dtype=np.float64)
        x = ((x - mean) / np.sqrt(variance + EPSILON)).astype(np.float32)
        x = np.where(x > 0, x, np.float32(SLOPE) * x)
    flat = x.ravel()  # [8 nf * 16]
    return (
        encoder["fc_mu.weight"] @ flat + encoder["fc_mu.bias"],
        encoder["fc_var.weight"] @ flat + encoder["fc_var.bias"],
    )


def resized(x: Float32, size: int) -> Float32:
    """Bilinear, pixel centres at 0.5: [3, H, W] -> [3, size, size]. A map of that size is returned as it is."""
    for axis in (1, 2):
        if x.shape[axis] != size:
            x = _resized_axis(x, axis, size)
    return x


def _resized_axis(x: Float32, axis: int, size: int) -> Float32:
    length = x.shape[axis]
    at = np.maximum((np.arange(size) + 0.5) * (length / size) - 0.5, 0)
    low = at.astype(np.intp)
    share = (at - low).astype(np.float32)
    share = share[:, None] if axis == 1 else share
    out: Float32 = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, length - 1), axis) * share
    return out


def _conv(x: Float32, weight: Float32) -> Float32:
    """A 3x3 conv of stride 2 and padding 1: [Ci, h, w], [Co, Ci, 3, 3] -> [Co, h / 2, w / 2]."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]  # [Ci, h', w', 3, 3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(weight[0].size, -1)  # [Ci * 9, h' * w']
    out: Float32 = (weight.reshape(len(weight), -1) @ columns).reshape(-1, *windows.shape[1:3])
    return out
