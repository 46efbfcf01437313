"""The TensorRT code on the real 11.4 bindings and empty libraries: types, names, and the first call.

No test here builds or runs an engine, which needs a GPU; test_tensorrt_rtx.py builds with TensorRT for RTX.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from small import small

from export.onnx import ExportOptions, export_graph
from export.tensorrt.profiles import SHARES5, ProfileError, input_profiles
from kernels.cuda.host.toolkit import ToolkitError, compile_ptx
from spade_core.models.seeded import seeded_generator
from tests.serving.served import TINY

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("tensorrt_probe.py")
SOURCES = [
    *sorted((ROOT / "export/tensorrt").glob("[a-z]*.py")),
    *sorted((ROOT / "serving/engines/tensorrt").glob("[a-z]*.py")),
]

pytestmark = [pytest.mark.xdist_group("tensorrt"), pytest.mark.usefixtures("traced_once")]


@pytest.fixture(scope="module")
def stubs() -> ModuleType:
    """The module scripts/tensorrt_stubs.py after a run, which downloads the bindings from PyPI the first time."""
    script = ROOT / "scripts" / "tensorrt_stubs.py"
    subprocess.run([sys.executable, str(script)], check=True)
    spec = importlib.util.spec_from_file_location("tensorrt_stubs", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def probe(stubs: ModuleType, *arguments: str | Path) -> Any:
    command = [sys.executable, str(PROBE), *map(str, arguments)]
    done = subprocess.run(command, env=stubs.environment(), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def strict_mypy(stubs: ModuleType, *files: Path) -> str:
    cache = stubs.FOLDER / "mypy"  # reading PyTorch's types takes long without a cache
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=stubs.environment())
    return done.stdout


def test_every_call_has_the_types_of_the_real_bindings(stubs: ModuleType, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import tensorrt as trt\n"
        "import tensorrt.plugin as trtp\n"
        "from export.tensorrt.library import Library\n"
        "def f(config: trt.IBuilderConfig, context: trt.IExecutionContext) -> None:\n"
        "    config.set_flag(trt.BuilderFlag.FP16)\n"  # removed in TensorRT 11
        "    config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, size=1)\n"  # the parameter is pool_size
        "    context.execute_async_v2(0)\n"
        "    trtp.aot_impl(1)\n"
        "def g(library: Library) -> None:\n"
        "    library.trt.OnnxParserFlag.NATIVE_INSTANCENORMS\n"
    )
    output = strict_mypy(stubs, *SOURCES, wrong)
    errors = [line.split(":")[:2] for line in output.splitlines() if ": error:" in line]
    # Compare names, since mypy's cache keeps the path of an earlier file with the same content.
    found = [(Path(path).name, int(line)) for path, line in errors]
    assert found == [("wrong.py", line) for line in (5, 6, 7, 8, 10)], output


def test_every_name_is_in_the_real_bindings(stubs: ModuleType) -> None:
    found = probe(stubs, "names", *SOURCES)
    assert [name for name, there in found.items() if not there] == []
    assert {"trt.BuilderFlag.REFIT_IDENTICAL", "trtp.aot_impl", "trt.IProgressMonitor"} <= set(found)
    assert len(found) > 40


def test_the_build_runs_up_to_the_first_call_of_the_library(stubs: ModuleType, tmp_path: Path) -> None:
    export_graph(seeded_generator(TINY), tmp_path / "m.onnx", "dense", ExportOptions(image="uint8"))
    said = probe(stubs, "build", tmp_path / "m.onnx")
    assert said["refused"].startswith("[tensorrt] expected a TensorRT builder but got none")
    assert "tensorrt-cu13-libs" in said["refused"]
    assert said["auto"] == "rtx"
    assert not (tmp_path / "m.plan").exists()


def test_options_become_flags_and_progress_can_end_a_build(stubs: ModuleType) -> None:
    found = probe(stubs, "options")
    assert found["flags"] == ["REFIT_IDENTICAL", "STRIP_PLAN", "VERSION_COMPATIBLE"]
    assert (found["level"], found["verbosity"]) == ("AMPERE_PLUS", "DETAILED")
    assert found["going"] == [True, False, False, False]  # Ctrl-C, the last, must not cross the library
    assert found["interrupted"]
    assert found["steps"][:2] == [["tactics", 0, 3], ["tactics", 1, 3]]
    assert found["stopped"]


def test_plugins_register_and_name_their_kernel(stubs: ModuleType) -> None:
    for plugin in probe(stubs, "plugin"):
        assert plugin["inputs"] == ["x", "entries", "index"]
        assert plugin["outputs"] == 1
        assert plugin["kernel"] == "spade_modulate_codebook_nchw_float16_plain"
        assert plugin["output_dtype"] == "DataType.HALF"
        assert plugin["arguments"] == 7


def test_ptx_holds_every_kernel_that_the_plugins_name() -> None:
    try:
        ptx = compile_ptx("modulate_codebook")
    except ToolkitError as error:
        pytest.skip(str(error))
    for dtype in ("float32", "float16", "bfloat16"):
        assert f".visible .entry spade_modulate_codebook_nchw_{dtype}_plain(" in ptx


def test_a_build_without_nvcc_says_how_to_leave_the_plugin_out(stubs: ModuleType) -> None:
    message = probe(stubs, "no-nvcc")
    assert "expected nvcc on PATH" in message
    assert "--no-plugin" in message


def test_the_profiles_cover_every_plan_of_the_batch() -> None:
    config = small("coco", height=64, width=128)
    usual, any_plan = input_profiles(config, "codebook", (1, 4, 8))
    assert usual["start"] == ((1, 2, 4), (4, 2, 4), (8, 2, 4))
    assert usual["index_5"] == ((1, 64, 128), (4, 64, 128), (8, 64, 128))
    # Twice the usual share of distinct patches, up to every pixel: scratch memory grows with the largest shape.
    assert usual["patches5_5"][2] == (math.ceil(8 * 64 * 128 * 2 * SHARES5[64]), 9)
    assert usual["patches5_0"][2] == (8 * 2 * 4, 9)
    # One map whose pixels all have a patch of their own.
    assert (any_plan["patches5_5"][2], any_plan["index_5"][2]) == ((64 * 128, 9), (1, 64, 128))
    for least, opt, largest in (*usual.values(), *any_plan.values()):
        assert all(a <= b <= c for a, b, c in zip(least, opt, largest, strict=True))
    assert [set(profile) for profile in input_profiles(config, "dense", (1, 1, 1))] == [{"labels", "instances"}]
    assert len(input_profiles(config, "codebook", (1, 1, 1))) == 1
    with pytest.raises(ProfileError, match=r"1 <= MIN <= OPT <= MAX but got \(4, 2, 8\)"):
        input_profiles(config, "dense", (4, 2, 8))
