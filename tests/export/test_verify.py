"""Verification finds the faults of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small import some_maps

from export.onnx import ExportOptions, export_graph
from export.verify import LEVEL, Row, VerifyError, check_file, compare, refuse_wrong, supported_operators
from spade_core.models.generator import Generator
from spade_core.models.seeded import seeded_generator
from tests.serving.served import TINY

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return seeded_generator(TINY)


@pytest.fixture(scope="module")
def file(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense") / "m.onnx"
    export_graph(generator, path, "dense", ExportOptions(image="uint8"))
    return path


def test_a_changed_weight_is_found_in_every_runtime(generator: Generator, file: Path, tmp_path: Path) -> None:
    model = onnx.load(str(file))
    tensor = next(t for t in model.graph.initializer if t.name.endswith("conv_img.weight"))
    weight = np.frombuffer(tensor.raw_data, np.float32).copy()
    weight[: len(weight) // 3] *= 1.2
    tensor.raw_data = weight.tobytes()
    onnx.save_model(model, str(tmp_path / "changed.onnx"))
    rows = compare(tmp_path / "changed.onnx", generator, *some_maps(generator.config, 2))
    assert [row.verdict for row in rows] == ["WRONG", "WRONG"]
    with pytest.raises(VerifyError, match=r"what PyTorch computes but got onnxruntime: max error .* openvino"):
        refuse_wrong(tmp_path / "changed.onnx", rows)


def test_bytes_are_within_one_level(generator: Generator, file: Path) -> None:
    rows = compare(file, generator, *some_maps(generator.config, 2))
    assert all(row.max_error <= LEVEL + 1e-6 for row in rows)


def test_an_operator_unknown_to_tensorrt_is_named(file: Path, tmp_path: Path) -> None:
    assert "Conv" in supported_operators()
    assert "Det" not in supported_operators()
    model = onnx.load(str(file))
    model.graph.node.append(onnx.helper.make_node("Det", [model.graph.node[0].output[0]], ["det"]))
    onnx.save_model(model, str(tmp_path / "det.onnx"))
    with pytest.raises(VerifyError, match="Det"):
        check_file(tmp_path / "det.onnx")


def test_a_broken_file_is_refused(file: Path, tmp_path: Path) -> None:
    model = onnx.load(str(file))
    model.graph.node[3].input[0] = "nowhere"
    onnx.save_model(model, str(tmp_path / "broken.onnx"))
    with pytest.raises(VerifyError, match=r"expected a valid model .*nowhere"):
        check_file(tmp_path / "broken.onnx")


def test_a_file_that_no_runtime_runs_is_refused() -> None:
    rows = [Row("onnxruntime", "dense", "bf16", float("nan"), float("nan"), "does not run it: no kernel")]
    with pytest.raises(VerifyError, match="none of onnxruntime, openvino does"):
        refuse_wrong(Path("m.onnx"), rows)
