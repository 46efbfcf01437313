"""The CUDA sources, their PTX and the C header; test_cuda_sass.py has the machine code of every target."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from cuda_emulated import REPOSITORY

from kernels.cuda.host.library import STRUCTS, Library, library_path, struct_fields
from kernels.cuda.host.toolkit import (
    CUDA,
    SOURCES,
    ToolkitError,
    compile_ptx,
    find_nvcc,
    run_nvcc,
    source_path,
)

HEADER = (REPOSITORY / "kernels" / "include" / "spade_cuda.h").read_text()


def test_every_source_is_compiled() -> None:
    assert sorted(SOURCES) == sorted(path.stem for path in CUDA.glob("*/*.cu"))
    cmake = (REPOSITORY / "CMakeLists.txt").read_text()
    assert f"foreach(source {' '.join(f'{source_path(name).parent.name}/{name}' for name in SOURCES)})" in cmake


def test_ptx_names_the_kernels_of_a_plugin() -> None:
    ptx = compile_ptx("modulate_codebook")
    for layout in ("nhwc", "nchw"):
        for dtype in ("float32", "float16", "bfloat16"):
            name = f"spade_modulate_codebook_{layout}_{dtype}_plain"
            (parameters,) = re.findall(rf"\.visible \.entry {name}\((.*?)\)", ptx, re.DOTALL)
            kinds = re.findall(r"\.param \.(\w+) (?:\.ptr \S+ \S+ )?\w", parameters)
            assert kinds == ["u64"] * 3 + ["u32"] * 7 + ["u64"], name


def test_only_hopper_gets_warpgroup_products() -> None:
    for dtype in ("f16.f16", "bf16.bf16"):
        assert f"wgmma.mma_async.sync.aligned.m64n256k16.f32.{dtype}" in compile_ptx("codebook", "compute_90a")
    assert "wgmma.mma_async" not in compile_ptx("codebook", "compute_90")


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _self: False)
    with pytest.raises(ToolkitError, match=r"expected nvcc on PATH, .* but found none; install the CUDA toolkit"):
        find_nvcc({"PATH": ""})


def test_a_compiler_that_fails_is_quoted() -> None:
    with pytest.raises(ToolkitError, match=r"nvcc failed: .*nowhere.cu"):
        run_nvcc(["-c", "nowhere.cu"])


@pytest.mark.parametrize("name", list(STRUCTS))
def test_structs_are_those_of_the_header(name: str) -> None:
    (body,) = re.findall(rf"typedef struct spade_{name} \{{(.*?)\}} spade_{name};", HEADER, re.DOTALL)
    declared = re.findall(
        r"(\w+)\s*(\*?)\s*(\w+)(\[SPADE_CUDA_MAX_LEVELS\])?;", re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    )
    kinds = {
        ctypes.c_void_p: ("*", ""),
        ctypes.c_int64: ("", ""),
        ctypes.c_double: ("", ""),
        ctypes.c_int64 * 10: ("", "["),
    }
    ours = [(field, *kinds[kind]) for field, kind in struct_fields(name)]
    assert ours == [(field, star, array[:1]) for _, star, field, array in declared]
    doubles = {field for field, kind in struct_fields(name) if kind is ctypes.c_double}
    assert doubles == {field for kind, _, field, _ in declared if kind == "double"}


def test_the_installed_library_has_every_function_of_the_header() -> None:
    functions = set(re.findall(r"SPADE_CUDA_API [^;(]*?(spade_cuda_\w+)\(", HEADER))
    assert len(functions) > 12
    printed = subprocess.run(["nm", "-D", "--defined-only", library_path()], capture_output=True, text=True, check=True)
    assert functions <= {line.split()[-1] for line in printed.stdout.splitlines()}
    assert isinstance(Library(library_path()).built, bool)
