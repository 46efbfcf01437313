"""The generator's last conv, tanh and the bytes of the image, on CUDA; `image_conv_torch` is the specification."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.constants import SLOPE
from kernels.cuda.host.library import CudaError, Library
from kernels.cuda.host.tensors import address, dtype_number, expect_contiguous, expect_shape, library_of, place_of


def image_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    constant: Tensor | None = None,
    values: Tensor | None = None,
    pixels: Tensor | None = None,
    library: Library | None = None,
) -> None:
    """values = tanh(conv(lrelu(x + constant))), 3 x 3 with padding 1; pixels = floor(127.5 (values + 1)).

    Args:
        x: [N, C, H, W], float32, float16 or bfloat16, channels last.
        weight: dtype of x, [3, C, 3, 3], channels last.
        bias: float32 [3].
        constant: float32 [C], or None: 0.
        values: float32 [N, 3, H, W], contiguous, out, or None.
        pixels: uint8 [N, H, W, 3], contiguous, out, or None.

    At least one of values and pixels must be given. Raises CudaError.
    """
    library = library_of(x, library)
    n, channels, height, width = x.shape
    expect_shape("image_conv", "weight", weight, (3, channels, 3, 3), x.dtype)
    expect_shape("image_conv", "bias", bias, (3,), torch.float32)
    if constant is not None:
        expect_shape("image_conv", "constant", constant, (channels,), torch.float32)
    if values is not None:
        expect_shape("image_conv", "values", values, (n, 3, height, width), torch.float32)
    if pixels is not None:
        expect_shape("image_conv", "pixels", pixels, (n, height, width, 3), torch.uint8)
    for name, given in (("x", x), ("weight", weight)):
        if not given.is_contiguous(memory_format=torch.channels_last):
            raise CudaError(f"[image_conv] expected {name} channels last but got strides {list(given.stride())}")
    expect_contiguous("image_conv", *(tensor for tensor in (bias, constant, values, pixels) if tensor is not None))
    library.call(
        "image_conv", place_of("image_conv", x, weight, bias, constant, values, pixels),
        x=address(x), constant=address(constant), weight=address(weight),
        bias=address(bias), values=address(values), pixels=address(pixels), n=n, height=height, width=width,
        channels=channels, dtype=dtype_number(x),
    )  # fmt: skip


def image_conv_torch(x: Tensor, weight: Tensor, bias: Tensor, constant: Tensor | None = None) -> Tensor:
    """The values that `image_conv` computes, in the dtype of its arguments; `kernels.ops.image` has the pixels."""
    if constant is not None:
        x = x + constant[:, None, None]
    return torch.tanh(F.conv2d(F.leaky_relu(x, SLOPE), weight, bias, padding=1))
