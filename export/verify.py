"""Check an ONNX file: is it valid, does TensorRT support its operators, do runtimes compute PyTorch's image?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.markup import escape
from rich.table import Table

from export.feeds import Feed, codebook_feed, dense_feed
from export.functions import inlined
from export.onnx import read_metadata, save
from export.openvino_core import openvino_core
from spade_core.maps.label_maps import prepare
from spade_core.models.dense import synthesize_dense
from spade_core.models.generator import Generator
from spade_core.types import Array

RUNTIMES = ("onnxruntime", "openvino")
OPERATORS = Path(__file__).parent / "tensorrt" / "operators.json"

# float32 kernels order their sums differently: 1e-4 on images in -1..1, or one level of a byte that is truncated.
MAX_ERROR_FP32 = 1e-4
LEVEL = 2 / 255
# The error of half precision depends on the weights. Below these values the graph is wrong, beyond any rounding.
MIN_PSNR_DB = {"fp16": 45.0, "bf16": 30.0, "int8": 20.0}


class VerifyError(RuntimeError):
    """An exported file that fails a check; the message says which check, and by how much."""


@dataclass(frozen=True)
class Row:
    """One runtime on one file, compared with PyTorch's float32 dense form on images in -1..1.

    Attributes:
        precision: fp32, fp16, bf16, or int8 for a file that `export.int8` wrote.
        max_error, psnr_db: NaN when the runtime cannot run the file.
        verdict: `ok`, `WRONG`, or why the runtime did not run the file.
    """

    runtime: str
    form: str
    precision: str
    max_error: float
    psnr_db: float
    verdict: str


def supported_operators() -> frozenset[str]:
    """The ONNX operators that TensorRT's parser supports; operators.json names the source."""
    return frozenset(json.loads(OPERATORS.read_text())["operators"])


def check_file(path: Path) -> dict[str, str]:
    """Check a file with onnx.checker and strict shape inference, and its operators against TensorRT's list.

    Returns the properties of the model. Raises VerifyError.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerifyError(f"[verify] expected a valid model in '{path}' but onnx.checker says: {error}") from None
    model = onnx.load(str(path), load_external_data=False)
    unknown = sorted(set(_operators(model)) - supported_operators())
    if unknown:
        raise VerifyError(
            f"[verify] expected operators that TensorRT's parser supports in '{path}' but got {', '.join(unknown)}"
        )
    untyped = [output.name for output in model.graph.output if not output.type.tensor_type.elem_type]
    if untyped:
        raise VerifyError(f"[verify] expected every output of '{path}' to have a type but got none for {untyped}")
    return read_metadata(model)


def _operators(model: Any) -> Iterable[str]:
    """The operators of the graph and of its functions' bodies, without the functions' own names."""
    functions = {(function.domain, function.name) for function in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            if (node.domain, node.op_type) not in functions:
                yield node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def compare(path: Path, generator: Generator, labels: Array, instances: Array | None, style: Array | None) -> list[Row]:
    """Run a file in every runtime on label maps [N, H, W] and compare with PyTorch's float32 dense form."""
    metadata = read_metadata(onnx.load(str(path), load_external_data=False))
    form, image = metadata["form"], metadata["image"]
    precision = "int8" if "int8" in metadata else metadata["precision"]
    feed = (dense_feed if form == "dense" else codebook_feed)(labels, instances, style, generator.config)
    reference = _reference(generator, labels, instances, style)
    if image == "uint8":
        reference = np.floor((reference + 1) * 127.5) / 127.5 - 1
    rows = []
    for runtime in RUNTIMES:
        try:
            got = open_session(runtime, path)(feed)
        except RuntimeError as error:
            reason = f"does not run it: {str(error).strip().splitlines()[-1]}"
            rows.append(Row(runtime, form, precision, float("nan"), float("nan"), reason))
            continue
        if image == "uint8":
            got = got.transpose(0, 3, 1, 2) / 127.5 - 1
        rows.append(_row(runtime, form, precision, image, got - reference))
    return rows


def _row(runtime: str, form: str, precision: str, image: str, error: Array) -> Row:
    worst, mse = float(np.abs(error).max()), float(np.mean(np.square(error, dtype=np.float64)))
    psnr = 10 * np.log10(4 / mse) if mse else float("inf")
    if precision == "fp32":
        good = worst <= (LEVEL + MAX_ERROR_FP32 if image == "uint8" else MAX_ERROR_FP32)
    else:
        good = psnr >= MIN_PSNR_DB[precision]
    return Row(runtime, form, precision, worst, float(psnr), "ok" if good else "WRONG")


def _reference(generator: Generator, labels: Array, instances: Array | None, style: Array | None) -> Array:
    symbols = prepare(labels, instances, generator.config).astype(np.int32)
    with torch.inference_mode():
        z = None if style is None else torch.from_numpy(style)
        image: Array = torch.tanh(synthesize_dense(generator, torch.from_numpy(symbols), z)).numpy()
    return image


def open_session(runtime: str, path: Path, threads: int | None = None) -> Callable[[Feed], Array]:
    """Load a file in `onnxruntime` or `openvino`, on the CPU, at the graph's own precision.

    Returns a function from inputs by name to the image. Raises RuntimeError when the runtime cannot run the file.
    """
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
            raise RuntimeError(str(error).split(" : ")[-1]) from None
        return lambda feed: np.asarray(session.run(None, feed)[0])

    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        compiled = openvino_core().compile_model(str(_without_functions(path, Path(folder))), "CPU", hints)
    return lambda feed: np.array(compiled(feed)[0])


def _without_functions(path: Path, folder: Path) -> Path:
    """A file that OpenVINO reads: `path`, or a copy in `folder` with local functions replaced by their bodies."""
    if not onnx.load(str(path), load_external_data=False).functions:
        return path
    save(inlined(path, weights=True), folder / path.name)
    return folder / path.name


def table(rows: Iterable[Row]) -> Table:
    """The rows for a terminal."""
    out = Table("runtime", "graph", "precision", "max error", "PSNR dB", "verdict")
    for row in rows:
        numbers = (f"{row.max_error:.1e}", f"{row.psnr_db:.1f}") if row.psnr_db == row.psnr_db else ("", "")
        out.add_row(row.runtime, row.form, row.precision, *numbers, escape(row.verdict))
    return out


def refuse_wrong(path: Path, rows: Iterable[Row]) -> None:
    """Raise VerifyError if a runtime computes another image than PyTorch, or if no runtime runs the file."""
    rows = list(rows)
    wrong = [row for row in rows if row.verdict == "WRONG"]
    if wrong:
        text = ", ".join(f"{r.runtime}: max error {r.max_error:.1e}, PSNR {r.psnr_db:.1f} dB" for r in wrong)
        raise VerifyError(f"[verify] expected '{path}' to compute what PyTorch computes but got {text}")
    if not any(row.verdict == "ok" for row in rows):
        raise VerifyError(f"[verify] expected a runtime that runs '{path}' but none of {', '.join(RUNTIMES)} does")
