"""Cases of the conv kernel beside PyTorch, oneDNN with packed weights, and an OpenVINO model of one conv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.cpu_kernels.timing import Case, Contender, exact, rounding, torch_contender, torch_dtype
from export.openvino_core import openvino_core
from kernels.isa import Isa, input_dtype, isa_dtype
from kernels.layouts import Array, DType, Float32, empty_plain, from_plain, storage_dtype, to_padded
from kernels.ops.conv import conv, pack_conv
from kernels.program import Pool, Program

ConvShape = tuple[int, int, int, int]
"""(in channels, out channels, height and width, kernel size)."""


@dataclass(frozen=True)
class ConvData:
    """Input [1, Ci, size, size], weight [Co, Ci, k, k] and bias [Co]; bf16 stores all of them exactly."""

    x: Float32
    weight: Float32
    bias: Float32


def draw_conv(shape: ConvShape) -> ConvData:
    in_channels, out_channels, size, kernel_size = shape
    random = np.random.default_rng(0)
    weight = exact(random, out_channels, in_channels, kernel_size, kernel_size)
    return ConvData(exact(random, 1, in_channels, size, size), weight, exact(random, out_channels))


def conv_case(isa: Isa, shape: ConvShape, pool: Pool) -> Case:
    """Return the case of one conv of stride 1 that keeps the size."""
    in_channels, out_channels, size, kernel_size = shape
    dtype, data = input_dtype(isa), draw_conv(shape)
    values = in_channels * size**2 + out_channels * size**2 + data.weight.size
    return Case(
        f"conv {kernel_size}x{kernel_size}", f"{in_channels}->{out_channels} {size}x{size}", dtype, isa, pool.threads,
        operations=2 * data.weight.size * size**2, bytes=values * storage_dtype(dtype).itemsize, bound="peak",
        limits=(rounding(dtype),), native=_native_conv(isa, data, pool),
        peers=_torch_convs(dtype, data) | _openvino_conv(dtype, data, pool.threads),
    )  # fmt: skip


def _native_conv(isa: Isa, data: ConvData, pool: Pool) -> Contender:
    out_channels = len(data.weight)
    y = empty_plain(1, out_channels, data.x.shape[2], data.x.shape[3], isa_dtype(isa))
    x, packed = to_padded(data.x, input_dtype(isa)), pack_conv(isa, data.weight, data.bias)
    program = Program([conv(isa, x, packed, y)])
    return Contender(lambda: pool.run(program), lambda: [from_plain(y, out_channels)])


def _torch_convs(dtype: DType, data: ConvData) -> dict[str, Contender]:
    """PyTorch's conv in channels-last layout: the eager call, and oneDNN with weights packed in advance."""
    kind, border = torch_dtype(dtype), data.weight.shape[2] // 2
    x, weight = (torch.from_numpy(array).to(kind, memory_format=torch.channels_last) for array in (data.x, data.weight))
    bias = torch.from_numpy(data.bias).to(kind)
    peers = {"torch": torch_contender(lambda: F.conv2d(x, weight, bias, padding=border))}
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        geometry = ([border, border], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(x.shape))
        peers["oneDNN, packed"] = torch_contender(
            lambda: torch.ops.mkldnn._convolution_pointwise(x, packed, bias, *geometry, "none", [], "")
        )
    return peers


def _openvino_conv(dtype: DType, data: ConvData, threads: int) -> dict[str, Contender]:
    """An OpenVINO model of the conv and its bias, with input and output [1, H, W, C], OpenVINO's own layout.

    Without OpenVINO there is none; the report says so.
    """
    if find_spec("openvino") is None:
        return {}
    import openvino
    from openvino import opset13 as op

    border, (_, in_channels, height, width) = data.weight.shape[2] // 2, data.x.shape
    kind = openvino.Type.bf16 if dtype == "bf16" else openvino.Type.f32
    given = op.parameter([1, height, width, in_channels], kind)
    x = op.transpose(op.convert(given, "f32"), [0, 3, 1, 2])
    y = op.convolution(x, op.constant(data.weight), [1, 1], [border, border], [border, border], [1, 1])
    y = op.transpose(op.add(y, op.constant(data.bias[None, :, None, None])), [0, 2, 3, 1])
    model = openvino.Model([op.result(op.convert(y, "bf16" if dtype == "bf16" else "f32"))], [given])
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino_core().compile_model(model, "CPU", hints).create_infer_request()
    lanes = torch.from_numpy(data.x).permute(0, 2, 3, 1).to(torch_dtype(dtype)).contiguous()
    tensor = openvino.Tensor(kind, openvino.Shape(list(lanes.shape)))
    tensor.data.view(np.uint8)[:] = lanes.view(torch.uint8).numpy()
    request.set_input_tensor(tensor)

    def read() -> Sequence[Array]:
        request.infer()
        out = torch.from_numpy(np.array(request.get_output_tensor().data).view(storage_dtype(dtype)).copy())
        wide = out.view(torch.bfloat16) if dtype == "bf16" else out
        return [wide.double().permute(0, 3, 1, 2).numpy()]

    return {"OpenVINO": Contender(request.infer, read)}
