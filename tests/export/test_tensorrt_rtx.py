"""Real engines, built by TensorRT for RTX on any machine. No test runs one, which needs an RTX GPU."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small import small
from tensorrt_names import names

from export.onnx import DTYPES, ExportOptions, Form, Precision, export_graph
from export.tensorrt.builder import build_engine, check_plugins, network_flags, parse
from export.tensorrt.library import EngineError, Library, choose, load, make_builder
from export.tensorrt.options import EngineOptions, parse_targets, refusals
from serving.engines.tensorrt.loading import load_engine
from spade_core.config import preset
from spade_core.models.seeded import seeded_generator
from tests.serving.served import TINY

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has wheels for x86_64 only")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
    pytest.mark.xdist_group("tensorrt_rtx"),
]

SOURCES = [*Path("export/tensorrt").glob("*.py"), *Path("serving/engines/tensorrt").glob("*.py")]
RTX = load("rtx")
Graph = Callable[[Form, Precision], Path]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Graphs of the demo architecture at full size, each made once."""
    folder = tmp_path_factory.mktemp("demo")

    def of(form: Form, precision: Precision) -> Path:
        path = folder / f"{form}-{precision}.onnx"
        if not path.exists():
            generator = seeded_generator(preset("demo"))
            export_graph(generator, path, form, ExportOptions(precision=precision, image="uint8"))
        return path

    return of


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The codebook graph of a small model in fp16."""
    path = tmp_path_factory.mktemp("small") / "m.onnx"
    export_graph(seeded_generator(TINY), path, "codebook", ExportOptions(precision="fp16", image="uint8"))
    return path


def built(path: Path, plan: Path, options: EngineOptions | None = None) -> dict[str, Any]:
    return build_engine(RTX, path, plan, options or EngineOptions(), lambda *_: True)


@pytest.mark.parametrize(
    ("form", "precision", "targets", "mask"),
    [
        ("dense", "fp16", None, 0b1111110),  # portable: every one but sm75
        ("dense", "fp16", ("sm89",), 0b0001000),
        ("codebook", "bf16", ("sm89",), 0b0001000),
    ],
)
def test_engines_of_the_demo_model(
    demo: Graph, form: Form, precision: Precision, targets: tuple[str, ...] | None, mask: int, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with caplog.at_level(logging.WARNING):
        facts = built(demo(form, precision), tmp_path / "spade.plan", EngineOptions(targets=targets))
    assert caplog.text == ""  # such as one name for the layers of eighteen modulate steps
    plan = (tmp_path / "spade.plan").read_bytes()
    assert plan[:4] == b"vtrt"
    assert int.from_bytes(plan[16:24], "little") == len(plan)
    assert ".".join(map(str, plan[24:28])) == facts["runtime_version"] == RTX.version
    assert plan[32] == mask
    layers = json.loads((tmp_path / "spade.layers.json").read_text())["Layers"]
    assert facts["layers"] == len(layers) == len({layer["Name"] for layer in layers})
    convs = [layer["Name"] for layer in layers if layer["LayerType"] == "CONVOLUTION"]
    assert len(convs) == {"dense": 73, "codebook": 19}[form]  # the codebook graph has the main convs only
    assert all(name.encode() in plan for name in convs)
    assert (facts["runtime"], facts["targets"]) == ("rtx", list(targets or ("portable",)))
    assert (facts["form"], facts["precision"], facts["state"]) == (form, precision, "built, not run")
    assert 0.1e9 < facts["scratch_bytes"] < 2e9


@pytest.mark.slow
def test_scratch_memory_of_a_full_size_model_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "coco.onnx"
    generator = seeded_generator(preset("coco")).to(DTYPES["fp16"])
    export_graph(generator, path, "codebook", ExportOptions(precision="fp16", image="uint8"))
    facts = built(path, tmp_path / "spade.plan")
    # One profile for every plan of eight maps reserves 6 GB.
    assert 1e9 < facts["scratch_bytes"] < 2e9
    assert facts["layers"] > 500


def test_a_build_ends_when_it_is_told_to(small_file: Path, tmp_path: Path) -> None:
    steps = []

    def progress(phase: str, done: int, _of: int) -> bool:
        steps.append((phase, done))
        return len(steps) < 20

    with pytest.raises(EngineError, match=r"expected an engine of '.*m\.onnx' but got: it was stopped"):
        build_engine(RTX, small_file, tmp_path / "spade.plan", EngineOptions(), progress)

    def ctrl_c(*_arguments: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(RTX, small_file, tmp_path / "spade.plan", EngineOptions(), ctrl_c)
    assert list(tmp_path.iterdir()) == []
    assert steps[0] == ("Building engine", 0)


def test_the_librarys_reason_is_in_the_message(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """Of another graph the library says no more than that memory is missing."""
    path = tmp_path_factory.mktemp("demo") / "m.onnx"
    export_graph(seeded_generator(small("demo")), path, "codebook", ExportOptions(precision="fp16", image="uint8"))
    with pytest.raises(EngineError, match="no tactics to implement the operation within workspace limit"):
        built(path, tmp_path / "spade.plan", EngineOptions(workspace_bytes=1 << 10))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "precision", "text"),
    [
        (EngineOptions(version_compatible=True), "fp16", "version_compatible: .*run on the version that built them"),
        (EngineOptions(hardware_compatible=True), "fp16", "hardware_compatible: .*--target"),
        (EngineOptions(refit=True), "fp16", "refit: .*without a GPU"),
        (EngineOptions(strip_weights=True), "fp16", "strip_weights: .*without a GPU"),
        (EngineOptions(timing_cache=Path("t")), "fp16", "timing_cache: .*times no kernels"),
        (EngineOptions(timing_cache=Path("t"), reproducible=True), "fp16", "reproducible: .*two builds"),
        (EngineOptions(plugin=True), "fp16", "plugin: .*has no plugins"),
        (EngineOptions(optimization_level=5), "fp16", "optimization_level: .*when it is loaded"),
        (EngineOptions(targets=("sm75", "sm89")), "bf16", "targets: sm75 .*fp16 only, and the graph is bf16"),
        (EngineOptions(targets=("sm75",)), "fp32", "targets: sm75 .*fp16 only, and the graph is fp32"),
    ],
)
def test_options_that_rtx_cannot_heed_are_refused_by_name(options: EngineOptions, precision: str, text: str) -> None:
    found = "; ".join(f"{name}: {reason}" for name, reason in refusals("rtx", options, precision, "codebook"))
    assert re.search(text, found), found
    ours = replace(options, targets=None)
    assert not list(refusals("tensorrt", ours, precision, "codebook"))


def test_a_refused_option_begins_no_build(small_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[tensorrt\] refit: TensorRT for RTX does not take it"):
        built(small_file, tmp_path / "spade.plan", EngineOptions(refit=True))
    assert built(small_file, tmp_path / "spade.plan", EngineOptions(targets=("sm75",)))["targets"] == ["sm75"]
    (reason,) = [why for _, why in refusals("tensorrt", EngineOptions(targets=("sm89",)), "fp16", "dense")]
    assert "builds for the GPU of this machine" in reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm90", "has no Hopper"),
        ("sm87", "targets out of sm75"),
        ("", "but got ''"),
        ("portable,sm89", "targets out of"),
    ],
)
def test_targets_that_do_not_exist_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_targets(text)
    assert parse_targets("sm89,sm86,sm89") == ("sm89", "sm86")


def test_a_network_without_its_plugins_is_refused(small_file: Path) -> None:
    builder = make_builder(RTX)
    network = builder.create_network(network_flags(RTX))
    parse(RTX.trt, network, small_file, inline=False)
    check_plugins(RTX.trt, network, 0)
    with pytest.raises(
        EngineError, match=r"a plugin for each of 18 modulate steps but the parser made 0: .*--no-plugin"
    ):
        check_plugins(RTX.trt, network, 18)
    assert tuple(network.get_output(0).shape) == (-1, 64, 64, 3)  # so that a run knows the images' size beforehand


@pytest.mark.parametrize(("namespace", "taken"), [("spade", True), ("", False)])
def test_the_parser_takes_a_registered_plugin_where_a_node_asks_for_one(
    namespace: str, taken: bool, small_file: Path
) -> None:
    # In a process of its own: a creator stays registered.
    command = [sys.executable, Path(__file__).with_name("rtx_creator.py"), small_file, namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["created"] == (["ModulateLeaky"] if taken else [])
    assert found["parsed"] is not taken  # the creator makes nothing, which ends the parsing


def test_a_file_that_is_no_engine_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "spade.plan").write_bytes(b"no engine" * 100)
    facts = {"runtime_version": "1.0", "runtime": "rtx"}
    with pytest.raises(
        RuntimeError, match=r"built with 1\.0, is refused: MALFORMED_ENGINE; build it with this version"
    ):
        load_engine(RTX, tmp_path / "spade.plan", facts)


def test_every_name_is_in_the_library() -> None:
    found = names([Path(__file__).parents[2] / path for path in SOURCES], trt=RTX.trt, rtx=RTX.trt)
    missing = {name for name, there in found.items() if not there}
    # Asked of TensorRT only.
    assert missing == {"trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS"}
    assert {"rtx.ComputeCapability", "rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "trt.Builder"} <= set(found)


def test_auto_is_rtx_where_tensorrt_cannot_build(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with caplog.at_level(logging.INFO):
        chosen: Library = choose("auto")
    assert chosen.kind == "rtx"
    assert "building with TensorRT for RTX" in caplog.text
    assert "expected the package tensorrt but it is not installed" in caplog.text
    with pytest.raises(ImportError, match="expected the package tensorrt but it is not installed; on a machine with"):
        choose("tensorrt")
    for name in ("tensorrt_rtx_bindings", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"package tensorrt .*; or .*package tensorrt_rtx_bindings .*'\.\[rtx\]'"):
        choose("auto")
