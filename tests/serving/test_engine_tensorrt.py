"""The tensorrt engine on a stand-in for TensorRT and PyCUDA: images, buffers, CUDA graphs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import fake_gpu
import numpy as np
import pytest
from served import TINY, blocks

import serving.engines.tensorrt.engine as engine_module
from export.onnx import ExportOptions, Form, export_graph
from export.tensorrt.options import Kind
from export.tensorrt.profiles import input_profiles
from export.verify import check_file
from serving.engines.reference import TorchEngine
from serving.engines.tensorrt.engine import TensorrtEngine
from serving.engines.timings import Timings
from spade_core.files.manifest import ManifestError, write_manifest
from spade_core.models.seeded import seeded_generator

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
    pytest.mark.xdist_group("engine_tensorrt"),  # two exports, made once
]

BATCH = (2, 2, 4)
BUILT = {
    "options": {"batch": BATCH, "strip_weights": False}, "runtime": "tensorrt", "runtime_version": "1.2.2",
    "targets": ["sm86"],
}  # fmt: skip
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
        write_manifest(root / form, facts | BUILT)
    return root


Load = Callable[..., Any]


@pytest.fixture
def load(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    def of(form: Form, kind: Kind = "tensorrt", **largest: int) -> TensorrtEngine:
        profiles = input_profiles(TINY, form, BATCH)
        for name, most in largest.items():
            least, usual, shape = profiles[0][name]
            profiles[0][name] = (least, usual, (most, *shape[1:]))
        library, cuda = fake_gpu.library(kind, folder / form / "spade.onnx", profiles), fake_gpu.pycuda_driver()
        package = ModuleType("pycuda")
        package.driver = cuda  # type: ignore[attr-defined]
        for name, module in {"pycuda": package, "pycuda.driver": cuda}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(engine_module, "recording", fake_gpu.recording(library.trt.context))  # type: ignore[attr-defined]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        fake_gpu.calls.clear()
        return TensorrtEngine(folder / form / "spade.plan", library=library)

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
    assert (timings.plan_s > 0) == (form == "codebook")
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


def test_a_graph_that_cannot_be_recorded_is_done_without(
    load: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load("dense")

    def refuses(_stream: int) -> Any:
        raise RuntimeError("capture is not permitted")

    monkeypatch.setattr(engine_module, "recording", refuses)
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
        load("dense", labels=1).synthesize(LABELS, INSTANCES, None)
    facts: dict[str, Any] = dict(check_file(folder / "dense" / "spade.onnx")) | BUILT
    (tmp_path / "spade.plan").write_bytes(b"of another version")

    def of(kind: Kind, **changes: str) -> None:
        write_manifest(tmp_path, facts | changes, ["spade.plan"])
        TensorrtEngine(tmp_path / "spade.plan", library=fake_gpu.library(kind, folder / "dense" / "spade.onnx", []))

    with pytest.raises(
        RuntimeError, match=r"1\.2\.3 but got: the version differs; .* 1\.2\.2, and bound to that version"
    ):
        of("tensorrt")
    with pytest.raises(RuntimeError, match=r"built with 1\.2\.2, is refused: VERSION_MISMATCH, UNSUPPORTED_CC; build"):
        of("rtx")
    with pytest.raises(ValueError, match="expected an engine with uint8 images but got float"):
        of("tensorrt", image="float")
    with pytest.raises(ImportError, match=r"package tensorrt but it is not installed"):
        TensorrtEngine(write(tmp_path, facts))
    write_manifest(tmp_path, facts, [])  # as a later export of the ONNX file alone leaves it
    with pytest.raises(ManifestError, match=r"to hold spade.plan but its .* is of an earlier export"):
        TensorrtEngine(tmp_path / "spade.plan")
    write(tmp_path, facts).write_bytes(b"changed")
    with pytest.raises(ManifestError, match=r"spade.plan has sha256"):
        TensorrtEngine(tmp_path / "spade.plan")


def write(folder: Path, facts: dict[str, Any]) -> Path:
    """The engine file of a folder whose manifest has `facts`."""
    write_manifest(folder, facts, ["spade.plan"])
    return folder / "spade.plan"


def test_maps_of_many_patches_run_alone_under_the_second_profile(load: Load) -> None:
    noise = np.random.default_rng(0).integers(0, 8, (1, 64, 64), np.uint8)  # every pixel has a patch of its own
    labels = np.concatenate([LABELS[:1], noise, LABELS[1:2]])
    expected = TorchEngine(seeded_generator(TINY)).synthesize(labels, labels.astype(np.int32), None)
    engine = load("codebook", **{f"patches5_{len(TINY.level_sizes) - 1}": 3000})
    images = engine.synthesize(labels, labels.astype(np.int32), None)
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert [call for call in fake_gpu.calls if call.startswith("profile")] == ["profile 1", "profile 0"]
    # Back in the usual profile, shapes repeat and the graph comes back.
    for _ in range(3):
        engine.synthesize(LABELS[:2], INSTANCES[:2], None)
    assert "launch" in fake_gpu.calls


def test_tensorrt_for_rtx_records_its_own_graph_and_keeps_its_kernels(load: Load, tmp_path: Path) -> None:
    engine = load("codebook", "rtx")
    assert "context whole lazy" in fake_gpu.calls
    images = [engine.synthesize(LABELS[:2], INSTANCES[:2], None) for _ in range(4)]
    np.testing.assert_array_equal(images[0], images[3])
    assert fake_gpu.calls.count("record") == 0
    (kept,) = (tmp_path / "cache" / "spade-serve" / "tensorrt-rtx").iterdir()
    assert kept.read_bytes() == b"kernels"
    kept.unlink()  # written after the first run, the tenth, the hundredth
    for _ in range(6):
        engine.synthesize(LABELS[:2], INSTANCES[:2], None)
    assert kept.exists()


def test_kernels_of_another_gpu_are_compiled_again(
    load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load("dense", "rtx").synthesize(LABELS[:2], INSTANCES[:2], None)
    (kept,) = (tmp_path / "cache" / "spade-serve" / "tensorrt-rtx").iterdir()
    kept.write_bytes(b"of another GPU")
    with caplog.at_level("INFO"):
        load("dense", "rtx").synthesize(LABELS[:2], INSTANCES[:2], None)
    assert "kernels are compiled again" in caplog.text
    assert kept.read_bytes() == b"kernels"
