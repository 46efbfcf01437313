"""What the PyTorch side of every kernel shares: a tensor's library, stream, layout and address, and checks."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cuda.host.library import DTYPES, CudaError, Layout, Library, Norm, Place, installed

_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def dtype_number(x: Tensor) -> int:
    """The number of a tensor's dtype in the C interface. Raises CudaError."""
    name = _NAMES.get(x.dtype)
    if name is None:
        raise CudaError(f"[cuda] expected a tensor of {', '.join(DTYPES)} but got {x.dtype}")
    return DTYPES[name]


def library_of(x: Tensor, library: Library | None) -> Library:
    """`library` or, if that is None, the installed library. Raises CudaError if the tensor is on another device."""
    library = library or installed()
    if x.device.type != library.device:
        raise CudaError(f"[cuda] expected a tensor on {library.device} but got one on {x.device}; move it there")
    return library


def place_of(op: str, x: Tensor, *others: Tensor | None) -> Place:
    """Where a call on these tensors launches: x's device, and PyTorch's current stream on it.

    Raises CudaError if a tensor is on another device than x, for the kernel would read an address of that device.
    """
    for other in others:
        if other is not None and other.device != x.device:
            raise CudaError(f"[{op}] expected all tensors on {x.device} but got one on {other.device}; move it there")
    return Place(device_number(x), int(torch.cuda.current_stream(x.device).cuda_stream) if x.is_cuda else 0)


def device_number(x: Tensor) -> int | None:
    """The number of the CUDA device that holds x; None off CUDA."""
    return x.device.index if x.is_cuda else None


def layout_of(x: Tensor) -> Layout:
    """The layout of x [N, C, H, W]: nhwc if x is channels last, else nchw."""
    return "nhwc" if x.is_contiguous(memory_format=torch.channels_last) else "nchw"


def memory_format(layout: Layout) -> torch.memory_format:
    """PyTorch's memory format of a layout."""
    return torch.channels_last if layout == "nhwc" else torch.contiguous_format


def in_layout(x: Tensor, layout: Layout) -> Tensor:
    """x [N, C, H, W] in a layout; a copy only if x has another layout."""
    return x.contiguous(memory_format=memory_format(layout))


def empty_map(shape: tuple[int, int, int, int], like: Tensor, layout: Layout) -> Tensor:
    """An uninitialised map [N, C, H, W] of the dtype and device of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format(layout))


def statistics_stride(mean: Tensor | None, n: int, channels: int) -> int:
    """Elements between the statistics of two images: C for [N, C], 0 for [1, C]. Raises CudaError."""
    if mean is None:
        return 0
    if mean.dtype != torch.float32 or tuple(mean.shape) not in {(n, channels), (1, channels)}:
        raise CudaError(
            f"[cuda] expected statistics float32 [{n}, {channels}] or [1, {channels}] "
            f"but got {mean.dtype} {list(mean.shape)}"
        )
    return channels if len(mean) == n else 0


def expect_shape(op: str, name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise CudaError unless x has this shape and dtype."""
    if tuple(x.shape) != shape or x.dtype != dtype:
        raise CudaError(f"[{op}] expected {name} {dtype} {list(shape)} but got {x.dtype} {list(x.shape)}")


def expect_contiguous(op: str, *tensors: Tensor) -> None:
    """Raise CudaError unless all tensors are contiguous."""
    for tensor in tensors:
        if not tensor.is_contiguous():
            raise CudaError(f"[{op}] expected contiguous tensors but got one {list(tensor.shape)} of strides "
                            f"{list(tensor.stride())}")  # fmt: skip


def scratch_for(library: Library, x: Tensor, norm: Norm) -> Tensor:
    """Scratch uint8 for the statistics of x [N, C, H, W]; one byte for norm "given", which needs none."""
    n, channels, height, width = x.shape
    size = library.norm_scratch_bytes(n, height * width, channels, norm)
    return torch.empty(max(size, 1), dtype=torch.uint8, device=x.device)


def address(x: Tensor | None) -> int | None:
    """The address of the first element; None stays None."""
    return None if x is None else x.data_ptr()
