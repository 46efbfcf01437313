"""Both ONNX graphs draw PyTorch's image, in two runtimes, at any batch size, and describe themselves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small import small, some_maps

from export.functions import functions, modulations
from export.onnx import OPSET, ExportError, ExportOptions, Form, Precision, export_graph, read_metadata, save
from export.verify import check_file, compare, open_session, refuse_wrong
from spade_core.config import PRESETS, GeneratorConfig
from spade_core.models.seeded import seeded_generator
from tests.serving.served import TINY

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
]


# What differs in the dense graph of coco and demo is all that differs: edges, "no class", style.
@pytest.mark.parametrize(
    ("name", "form"), [*((name, "codebook") for name in PRESETS), ("coco", "dense"), ("demo", "dense")]
)
def test_every_preset_exports_and_runs(name: str, form: Form, tmp_path: Path) -> None:
    config = small(name)
    generator = seeded_generator(config)
    export_graph(generator, tmp_path / "m.onnx", form, ExportOptions(metadata={"weights": "untrained"}))
    metadata = check_file(tmp_path / "m.onnx")
    assert GeneratorConfig.from_dict(json.loads(metadata["config"])) == config
    assert (metadata["form"], metadata["precision"], metadata["weights"]) == (form, "fp32", "untrained")
    assert len(json.loads(metadata["classes"])) == len(json.loads(metadata["palette"])) == config.classes
    for batch in (1, 3):
        rows = compare(tmp_path / "m.onnx", generator, *some_maps(config, batch))
        refuse_wrong(tmp_path / "m.onnx", rows)
        assert [row.verdict for row in rows] == ["ok", "ok"]


@pytest.mark.parametrize(("form", "precision", "norm"), [("dense", "bf16", "instance"), ("codebook", "fp16", "batch")])
def test_half_precision_and_bytes(form: Form, precision: Precision, norm: str, tmp_path: Path) -> None:
    names = tuple(f"own {i}" for i in range(TINY.label_nc))
    # Instance norm needs more than one pixel at the start, which TINY has.
    config = replace(TINY, norm=norm, class_names=names)
    generator = seeded_generator(config)
    export_graph(generator, tmp_path / "m.onnx", form, ExportOptions(precision=precision, image="uint8"))
    assert json.loads(check_file(tmp_path / "m.onnx")["classes"]) == [*names, "don't care"]
    model = onnx.load(str(tmp_path / "m.onnx"))
    half = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    weights = {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("weight")}
    assert weights == {half}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    rows = compare(tmp_path / "m.onnx", generator, *some_maps(config, 2))
    refuse_wrong(tmp_path / "m.onnx", rows)


@pytest.fixture(scope="module")
def codebook_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codebook") / "m.onnx"
    export_graph(seeded_generator(small("demo")), path, "codebook")
    return path


def test_modulate_is_a_function_that_holds_the_leaky_relu(codebook_file: Path) -> None:
    model = onnx.load(str(codebook_file))
    calls = Counter(node.op_type for node in model.graph.node)
    # Seven blocks have two norms each, followed by a leaky ReLU; four shortcuts have a norm without one; the last leaky
    # ReLU is before conv_img.
    assert (calls["ModulateLeaky"], calls["Modulate"], calls["LeakyRelu"]) == (14, 4, 1)
    assert [(f.domain, f.name) for f in model.functions] == [("spade", "Modulate"), ("spade", "ModulateLeaky")]
    # TensorRT's parser looks for a plugin where a node has this attribute.
    named = [a.s for node in model.graph.node for a in node.attribute if a.name == "plugin_namespace"]
    assert named == [b"spade"] * modulations(model) == [b"spade"] * 18


@pytest.mark.parametrize(("name", "slope"), [("Modulate", 1.0), ("ModulateLeaky", 0.2)])
def test_the_body_of_modulate_is_its_formula(name: str, slope: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, entries = random.standard_normal((2, 5, 4, 6)), random.standard_normal((7, 10))
    index = random.integers(0, 7, (2, 4, 6)).astype(np.int32)
    got = open_session("onnxruntime", _one_modulate(tmp_path, name))(
        {"x": x.astype(np.float32), "entries": entries.astype(np.float32), "index": index}
    )
    a, b = np.split(entries[index].transpose(0, 3, 1, 2), 2, axis=1)
    expected = a * x + b
    expected = np.where(expected > 0, expected, np.float32(slope) * expected)
    np.testing.assert_allclose(got, expected, atol=8 * np.finfo(np.float32).eps * np.abs(expected).max())


def _one_modulate(folder: Path, name: str) -> Path:
    model: Any = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {OPSET}, "spade": 1]>
        g (float[N, C, H, W] x, float[U, D] entries, int32[N, H, W] index) => (float[N, C, H, W] y)
        {{ y = spade.{name} (x, entries, index) }}
    """)
    model.functions.extend(functions(OPSET))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(folder / "modulate.onnx"))
    return folder / "modulate.onnx"


def test_a_file_holds_no_trace_of_the_machine_that_wrote_it(codebook_file: Path) -> None:
    assert str(Path(__file__).parents[2]).encode() not in codebook_file.read_bytes()


def test_large_weights_lie_beside_the_file_and_old_weights_are_removed(codebook_file: Path, tmp_path: Path) -> None:
    model, path = onnx.load(str(codebook_file)), tmp_path / "big.onnx"
    for _ in range(2):
        save(onnx.load(str(codebook_file)), path, external_above_bytes=1000)
    (data,) = tmp_path.glob("big.onnx.*.data")
    assert data.stat().st_size > path.stat().st_size
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, data.name]
    onnx.checker.check_model(str(path), full_check=True)
    loaded = onnx.load(str(path))
    assert {t.name: t.dims for t in loaded.graph.initializer} == {t.name: t.dims for t in model.graph.initializer}
    save(model, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(
    codebook_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    save(onnx.load(str(codebook_file)), path)
    before = path.read_bytes()

    def disk_full(*_arguments: object, **_keywords: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(onnx, "save_model", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save(onnx.load(str(codebook_file)), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_model_with_a_style_has_one_size(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"expected 32x32, the one size .* but got 64x64"):
        export_graph(seeded_generator(small("demo")), tmp_path / "m.onnx", "dense", ExportOptions(size=(64, 64)))


def test_a_foreign_file_has_no_properties(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="without its properties"):
        read_metadata(onnx.load(str(_one_modulate(tmp_path, "Modulate"))))
