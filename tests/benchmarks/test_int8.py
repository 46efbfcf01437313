"""INT8 main convs: the right nodes are quantised, both runtimes run the file, the image is close, scores are right."""

from __future__ import annotations

import json
from collections import Counter
from io import StringIO
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks.model.int8 import Options, main, run, table, why_unjudged
from export.int8 import main_convs, quantise
from export.onnx import ExportError, ExportOptions, export_graph
from export.verify import check_file
from serving.engines.choose import UNTRAINED
from spade_core.files.checkpoints import save
from spade_core.maps.samples import read_maps
from spade_core.models.seeded import seeded_generator
from tests.export.small import small
from tests.serving.served import TINY
from trainer.evaluation.evaluate import Judges, Sampling, evaluate, scene_examples
from trainer.evaluation.judges import scenes_segmentation

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
]

CONFIG = small("ade20k")
# The PSNR of an INT8 image lies between a wrong image (below 20 dB) and float32 rounding (above 100 dB).
PSNR_RANGE_DB = (20.0, 70.0)
SCENES = small("demo")
# Float32 kernels add in different orders, so a grey level may flip, and with the grey level a pixel's label.
ACCURACY_TOLERANCE = 2e-3


def test_both_runtimes_run_it_and_the_image_is_close(tmp_path: Path) -> None:
    generator = seeded_generator(CONFIG)
    rows, real = run(generator, read_maps(CONFIG, None, 3), Options("codebook", 2, 1, 1), tmp_path, [])
    assert real is None
    assert [(row.runtime, row.precision) for row in rows] == [
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8"),
    ]  # fmt: skip
    for row in rows:
        assert row.scores is None
        if row.precision == "fp32":
            assert row.psnr_db > 100
        else:
            assert PSNR_RANGE_DB[0] < row.psnr_db < PSNR_RANGE_DB[1]
    shown = StringIO()
    Console(width=140, file=shown).print(table(rows, "codebook", None, "no mIoU: nobody to judge"))
    assert "no mIoU: nobody to judge" in shown.getvalue()
    assert check_file(tmp_path / "int8.onnx")["int8"] == "18 main convs"
    model = onnx.load(str(tmp_path / "int8.onnx"))
    assert len(main_convs(onnx.load(str(tmp_path / "fp32.onnx")))) == 18  # seven blocks of two, four shortcuts
    weights = Counter(t.data_type for t in model.graph.initializer if "conv_" in t.name and "quantized" in t.name)
    assert weights[onnx.TensorProto.INT8] >= 18
    last = next(node for node in model.graph.node if any("conv_img.weight" in name for name in node.input))
    assert last.op_type == "Conv"  # left in float32


def test_what_cannot_be_quantised_is_said(tmp_path: Path) -> None:
    half = ExportOptions(precision="fp16", image="uint8")
    export_graph(seeded_generator(TINY), tmp_path / "half.onnx", "codebook", half)
    with pytest.raises(ExportError, match="expected a float32 file to quantise but got fp16"):
        quantise(tmp_path / "half.onnx", tmp_path / "out.onnx", [])
    assert not (tmp_path / "out.onnx").exists()


def test_weights_trained_on_scenes_are_judged_as_spade_evaluate_judges_them(tmp_path: Path) -> None:
    generator = seeded_generator(SCENES)
    save(tmp_path / "w.safetensors", generator, metadata={"data": "scenes"})
    files = ["--weights", str(tmp_path / "w.safetensors"), "--json", str(tmp_path / "out.json")]
    options = ["--form=dense", "--maps=2", "--calibrate=1", "--repeats=1", "--scenes=3", "--threads=1"]
    result = CliRunner().invoke(main, [*files, *options], env={"COLUMNS": "140"}, catch_exceptions=False)
    assert result.exit_code == 0
    judges, sampling = Judges(segment=scenes_segmentation()), Sampling(styles=0, diversity_maps=0, batch=3, seed=0)
    wanted = evaluate(generator, scene_examples(SCENES, 3), judges, sampling)
    assert wanted.generated is not None
    assert wanted.real is not None
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["scenes"], report["unjudged"]) == (3, None)
    assert report["real_scenes"]["class_iou"] == wanted.real.class_iou
    onnxruntime, int8, openvino, _ = (row["scores"] for row in report["rows"])
    for scores in (onnxruntime, openvino):
        assert abs(scores["pixel_accuracy"] - wanted.generated.pixel_accuracy) <= ACCURACY_TOLERANCE
    assert int8 != onnxruntime
    last = next(line for line in result.output.splitlines() if "real scenes" in line)
    assert f"{wanted.real.miou:.3f}" in last
    assert f"{wanted.real.pixel_accuracy:.3f}" in last


def test_other_weights_are_not_judged_and_it_says_why() -> None:
    assert why_unjudged({"data": "scenes"}) is None
    assert "these weights are untrained; give the demo model's by --weights" in str(
        why_unjudged({"weights": UNTRAINED})
    )
    assert "these weights are trained on folder data;" in str(why_unjudged({"data": "folder"}))
    assert "these weights are trained on unknown data;" in str(why_unjudged({}))
