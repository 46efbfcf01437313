"""The tensorrt engine on a stand-in for TensorRT and PyCUDA: images, buffers, CUDA graphs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import fake_gpu
import numpy as np
import pytest
from served import TINY, blocks

from export.onnx import ExportOptions, Form, export_graph
from export.verify import check_file
from serving.engines.reference import TorchEngine
from serving.engines.timings import Timings
from spade_core.files.manifest import ManifestError, write_manifest
from spade_core.models.seeded import seeded_generator

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.xdist_group("engine_tensorrt"),  # two exports, made once
]

LABELS = blocks(1, count=5, size=64, classes=8)
INSTANCES = LABELS.astype(np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both graphs, each with a manifest and a file that stands for its engine."""
    root = tmp_path_factory.mktemp("engines")
    for form in get_args(Form):
        export_graph(seeded_generator(TINY), root / form / "spade.onnx", form, ExportOptions(image="uint8"))
        facts: dict[str, Any] = dict(check_file(root / form / "spade.onnx"))
        (root / form / "spade.plan").write_bytes(b"engine")
        write_manifest(root / form, facts | {"options": {"batch": [2, 2, 4], "strip_weights": False}})
    return root


Load = Callable[..., Any]


@pytest.fixture
def load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    def of(form: str, largest: dict[str, int] | None = None) -> Any:
        trt, cuda = fake_gpu.tensorrt(folder / form / "spade.onnx", largest), fake_gpu.pycuda_driver()
        package = ModuleType("pycuda")
        package.driver = cuda  # type: ignore[attr-defined]
        for name, module in {"tensorrt": trt, "pycuda": package, "pycuda.driver": cuda}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delitem(sys.modules, "serving.engines.tensorrt", raising=False)
        module = importlib.import_module("serving.engines.tensorrt")
        monkeypatch.setattr(module, "recording", fake_gpu.recording(trt.context))
        fake_gpu.calls.clear()
        return module.TensorrtEngine(folder / form / "spade.plan")

    return of


@pytest.mark.parametrize("form", ["dense", "codebook"])
def test_images_are_the_torch_engines(load: Load, form: str) -> None:
    engine, timings = load(form), Timings()
    expected = TorchEngine(seeded_generator(TINY)).synthesize(LABELS, INSTANCES, None)
    # Five maps: a batch of four, then one map, filled to the engine's smallest batch of two.
    images = engine.synthesize(LABELS, INSTANCES, None, timings)
    assert images.shape == expected.shape
    assert images.dtype == np.uint8
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert timings.plan_s > 0
    assert timings.convs_s > 0
    assert engine._cuda.context.depth == 0


def test_a_graph_is_recorded_when_shapes_repeat_and_launched_from_then_on(load: Load) -> None:
    engine, two = load("codebook"), slice(0, 2)
    first = engine.synthesize(LABELS[two], INSTANCES[two], None)
    assert "record" not in fake_gpu.calls
    engine.synthesize(LABELS[two], INSTANCES[two], None)
    assert fake_gpu.calls.count("record") == 1
    np.testing.assert_array_equal(engine.synthesize(LABELS[two], INSTANCES[two], None), first)
    assert fake_gpu.calls.count("launch") == 1
    # Other shapes: the engine runs without a graph and drops the old one.
    engine.synthesize(LABELS[:4], INSTANCES[:4], None)
    assert fake_gpu.calls.count("launch") == 1
    np.testing.assert_array_equal(engine.synthesize(LABELS[two], INSTANCES[two], None), first)
    assert fake_gpu.calls.count("launch") == 1
    # From now on nothing is allocated.
    before = fake_gpu.calls.count("mem_alloc")
    for _ in range(3):
        np.testing.assert_array_equal(engine.synthesize(LABELS[two], INSTANCES[two], None), first)
    assert fake_gpu.calls.count("mem_alloc") == before
    assert fake_gpu.calls.count("launch") == 3


def test_a_graph_that_cannot_be_recorded_is_done_without(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    engine = load("dense")

    def refuses(_stream: int) -> Any:
        raise RuntimeError("capture is not permitted")

    sys.modules["serving.engines.tensorrt"].recording = refuses  # type: ignore[attr-defined]
    images = [engine.synthesize(LABELS[:2], INSTANCES[:2], None) for _ in range(3)]
    np.testing.assert_array_equal(images[0], images[2])
    assert "capture is not permitted" in caplog.text


def test_out_of_memory_ends_one_request(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load("dense")
    two = engine.synthesize(LABELS[:2], INSTANCES[:2], None)

    def full(_size: int) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as small:
        small.setattr(engine._cuda, "mem_alloc", full)
        for _ in range(2):  # the second time too: a failed allocation must not count as memory
            with pytest.raises(RuntimeError, match="out of memory"):
                engine.synthesize(LABELS[:4], INSTANCES[:4], None)
        np.testing.assert_array_equal(engine.synthesize(LABELS[:2], INSTANCES[:2], None), two)
    np.testing.assert_array_equal(engine.synthesize(LABELS[:4], INSTANCES[:4], None)[:2], two)


def test_what_an_engine_cannot_do_is_said(load: Load, folder: Path, tmp_path: Path) -> None:
    engine = load("dense")
    with pytest.raises(ValueError, match=r"expected maps of 64x64, .* but got 32x32"):
        engine.synthesize(LABELS[:, ::2, ::2], INSTANCES[:, ::2, ::2], None)
    with pytest.raises(ValueError, match=r"expected ids 0\.\.8 .* but got 9"):
        engine.synthesize(np.full_like(LABELS, 9), INSTANCES, None)
    with pytest.raises(ValueError, match=r"labels within the engine's profile but got shape \[4, 64, 64\]"):
        load("dense", {"labels": 1}).synthesize(LABELS, INSTANCES, None)
    module = sys.modules["serving.engines.tensorrt"]
    facts: dict[str, Any] = dict(check_file(folder / "dense" / "spade.onnx"))
    facts["options"] = {"batch": [1, 1, 1], "strip_weights": False}
    (tmp_path / "spade.plan").write_bytes(b"of another version")
    write_manifest(tmp_path, facts)
    with pytest.raises(RuntimeError, match=r"bound to the TensorRT version and the GPU"):
        module.TensorrtEngine(tmp_path / "spade.plan")
    write_manifest(tmp_path, facts | {"image": "float"})
    with pytest.raises(ValueError, match="expected an engine with uint8 images but got float"):
        module.TensorrtEngine(tmp_path / "spade.plan")
    write_manifest(tmp_path, facts, [])  # as a later export of the ONNX file alone leaves it
    with pytest.raises(ManifestError, match=r"to hold spade.plan but its .* is of an earlier export"):
        module.TensorrtEngine(tmp_path / "spade.plan")
    write_manifest(tmp_path, facts)
    (tmp_path / "spade.plan").write_bytes(b"changed")
    with pytest.raises(ManifestError, match=r"spade.plan has sha256"):
        module.TensorrtEngine(tmp_path / "spade.plan")
