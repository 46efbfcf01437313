"""INT8 main convs: the right nodes, a file both runtimes run, and an image that is close but not equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from benchmarks.int8 import run, table
from export.int8 import main_convs, quantise
from export.maps import read_maps
from export.onnx import ExportError, export_codebook
from export.verify import check_file
from spade_core.config import preset
from spade_core.seeded import seeded_generator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CONFIG = replace(preset("ade20k"), nf=4, height=32, width=32)
# INT8 keeps 8 bits of a value, float32 rounding is below 1e-6: between the two lies what was quantised.
PSNR_RANGE_DB = (20.0, 70.0)


def test_both_runtimes_run_it_and_the_image_is_close(tmp_path: Path) -> None:
    generator = seeded_generator(CONFIG)
    rows = run(generator, read_maps(CONFIG, None, 3), 2, "codebook", 1, 1, tmp_path)
    assert [(row.runtime, row.precision) for row in rows] == [
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8"),
    ]  # fmt: skip
    for row in rows:
        if row.precision == "fp32":
            assert row.psnr_db > 100
        else:
            assert PSNR_RANGE_DB[0] < row.psnr_db < PSNR_RANGE_DB[1]
    console = Console(width=120, record=True, quiet=True)
    console.print(table(rows, "codebook"))
    assert check_file(tmp_path / "int8.onnx")["int8"] == "18 main convs"
    model = onnx.load(str(tmp_path / "int8.onnx"))
    assert len(main_convs(onnx.load(str(tmp_path / "fp32.onnx")))) == 18  # seven blocks of two, four shortcuts
    weights = Counter(t.data_type for t in model.graph.initializer if "conv_" in t.name and "quantized" in t.name)
    assert weights[onnx.TensorProto.INT8] >= 18
    last = next(node for node in model.graph.node if any("conv_img.weight" in name for name in node.input))
    assert last.op_type == "Conv"  # left in float32


def test_what_cannot_be_quantised_is_said(tmp_path: Path) -> None:
    export_codebook(seeded_generator(CONFIG), tmp_path / "half.onnx", precision="fp16")
    with pytest.raises(ExportError, match="expected a float32 file to quantise but got fp16"):
        quantise(tmp_path / "half.onnx", tmp_path / "out.onnx", [])
    assert not (tmp_path / "out.onnx").exists()
