"""The machine code of every CUDA kernel on every GPU: resources within a table of limits, and loads before stores.

Compiling every source for every GPU takes minutes, and one compiler makes the same code of the same source each time.
So cuda_sass_checked.json has the fingerprint of each source that was compiled and checked, and only sources, checks and
compilers that are not in it are compiled again. After a change of a kernel, check all and write the file anew:

    python tests/kernels/test_cuda_sass.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cuda_emulated import REPOSITORY
from cuda_sass import TARGETS, Compiled, Instruction, compile_all, compiler_version, fingerprint, instructions

from kernels.cuda.host.occupancy import Resources
from kernels.cuda.host.toolkit import ARCHITECTURES, PTX_ARCHITECTURE, SOURCES, source_path

CHECKED = Path(__file__).with_name("cuda_sass_checked.json")
WITH_KERNELS = [source for source in SOURCES if source != "error"]


@dataclass(frozen=True)
class Limit:
    """The most registers of a kernel, and the fewest blocks of a multiprocessor.

    Attributes:
        blocks: on GPUs of 2048 threads (A100, H100, B200).
        few: on GPUs of 1536 threads and 100 KB of shared memory (A10, L4, RTX).
        dynamic: bytes of dynamic shared memory of a block.
    """

    registers: int
    blocks: int
    few: int
    dynamic: int = 0


STAGE = 48 << 10
IMAGE = 55_936
BLACKWELL = ("sm_100", "sm_120")  # computes on pairs of float32, which take more registers
# The first pattern that fits a kernel's name and, after a space, its architecture counts.
LIMITS: dict[str, Limit] = {
    r"spade_modulate_codebook_wide_\w+_norm\w*": Limit(128, 2, 2),
    r"spade_modulate_codebook_wide_\w+ sm_1\w+": Limit(128, 2, 2),
    r"spade_modulate_codebook_wide_\w+": Limit(80, 3, 3),
    r"spade_modulate_codebook_nhwc_\w+": Limit(128, 2, 2),
    r"spade_modulate_codebook_nchw_\w+": Limit(64, 4, 4),
    r"spade_codebook_gradient_\w+": Limit(128, 2, 2),
    r"spade_modulate_dense_backward_\w+": Limit(88, 2, 2),
    r"spade_modulate_dense_\w+": Limit(72, 3, 3),
    r"spade_modulate_plane_\w+": Limit(64, 3, 2),
    r"spade_norm_\w+": Limit(128, 2, 2),
    r"spade_plan_\w+": Limit(64, 4, 4),
    r"spade_gather_\w+": Limit(64, 4, 4),
    r"spade_image_wide_\w+": Limit(80, 2, 1, IMAGE),
    r"spade_image_\w+": Limit(128, 2, 2),
    r"spade_product_float32": Limit(128, 2, 2),
    r"spade_product_few_\w+": Limit(255, 1, 1, 2 * STAGE),
    r"spade_product_wgmma_\w+": Limit(255, 1, 1, 4 * STAGE),
    r"spade_product_\w+": Limit(255, 1, 0, 3 * STAGE),  # too large for 100 KB: `few` takes its place there
}
# 16-byte loads before the first store. With a norm Blackwell's registers suffice for two pixels at a time.
WIDE_LOADS = {"": 12, "_up": 9, "_norm": 12, "_norm_up": 9}
BLACKWELL_LOADS = WIDE_LOADS | {"": 9, "_norm": 3, "_norm_up": 5}


def limit_of(kernel: str, architecture: str) -> Limit:
    names = (f"{kernel} {architecture}", kernel)
    return next(limit for pattern, limit in LIMITS.items() if any(re.fullmatch(pattern, name) for name in names))


@pytest.mark.parametrize("source", WITH_KERNELS)
def test_kernels_keep_to_their_limits(source: str, tmp_path: Path) -> None:
    if fingerprint(source, Path(__file__)) != json.loads(CHECKED.read_text())["sources"].get(source):
        check_source(source, tmp_path)


def test_the_fingerprints_are_of_these_sources() -> None:
    checked = json.loads(CHECKED.read_text())
    if compiler_version() == checked["compiler"]:
        assert checked == fingerprints(), f"write {CHECKED.name} anew: python tests/kernels/{Path(__file__).name}"


def test_machine_code_is_read_from_what_was_compiled(tmp_path: Path) -> None:
    """Whatever was checked before: one source for one GPU, its resources and its instructions."""
    compiled = compile_all("norm", tmp_path, {"compute_90a": ("sm_90a",)})
    assert {one.architecture for one in compiled.resources} == {"sm_90a"}
    for one in compiled.resources:
        check_resources(one)
    check_statistics_loads(compiled, ["sm_90a"])


def check_source(source: str, folder: Path) -> None:
    """Compile a source for every GPU and check its kernels."""
    assert {name for names in TARGETS.values() for name in names} == {*ARCHITECTURES, PTX_ARCHITECTURE}
    compiled = compile_all(source, folder)
    assert "serialized" not in compiled.printed  # ptxas says so if warpgroup products wait for each other
    declared = re.findall(r"extern \"C\" __global__", source_path(source).read_text())
    seen = [(one.kernel, one.architecture) for one in compiled.resources]
    assert len(seen) == len(set(seen)) >= len(declared) * len(ARCHITECTURES)
    assert {architecture for _, architecture in seen} == set(ARCHITECTURES)
    for one in compiled.resources:
        check_resources(one)
    for check in CHECKS.get(source, ()):
        check(compiled)


def fingerprints() -> dict[str, object]:
    """What cuda_sass_checked.json has of sources that pass."""
    sources = {source: fingerprint(source, Path(__file__)) for source in WITH_KERNELS}
    return {"compiler": compiler_version(), "sources": sources}


def check_resources(one: Resources) -> None:
    limit = limit_of(one.kernel, one.architecture)
    roomy = one.architecture in ("sm_80", "sm_90a", "sm_100")
    if "wgmma" in one.kernel and one.architecture != "sm_90a":
        return  # an empty body
    assert one.local == 0, f"{one} uses local memory"
    assert one.registers <= limit.registers, f"{one} may use {limit.registers} registers"
    blocks = one.blocks(limit.dynamic)
    assert blocks >= (limit.blocks if roomy else limit.few), f"{one}: {blocks} blocks fit a multiprocessor"


def check_wide_loads(compiled: Compiled) -> None:
    for architecture in ARCHITECTURES:
        variants = BLACKWELL_LOADS if architecture in BLACKWELL else WIDE_LOADS
        kernels = {
            f"spade_modulate_codebook_wide_{dtype}{variant}": loads
            for dtype in ("float32", "float16", "bfloat16")
            for variant, loads in variants.items()
        }
        found = instructions(compiled.path, architecture, list(kernels))
        assert set(found) == set(kernels)
        for kernel, code in found.items():
            assert loads_before_a_store(code) >= kernels[kernel], f"{kernel} on {architecture}"
            assert not any(one.name.startswith(("LDL", "STL")) for one in code), f"{kernel} on {architecture}"


def check_statistics_loads(compiled: Compiled, architectures: Sequence[str] = ARCHITECTURES) -> None:
    """Four items are read before the first is added: four loads for statistics, eight for sums of x and g."""
    for kernel, loads in (("spade_norm_statistics_float16", 4), ("spade_norm_sums_float16", 8)):
        for architecture in architectures:
            code = instructions(compiled.path, architecture, [kernel])[kernel]
            assert most_loads_in_a_row(code) >= loads, f"{kernel} on {architecture}"


def check_proxy_fence(compiled: Compiled) -> None:
    """The fence between copies and warpgroup products does not wait for the copies of the next step.

    ptxas makes MEMBAR.ALL.CTA and FENCE.VIEW.ASYNC of it, also where no copy is under way. Copies hold scoreboard 0,
    which DEPBAR.LE waits for until one group is left; the MEMBAR waits for no scoreboard of its own.
    """
    kernel = "spade_product_wgmma_float16"
    code = instructions(compiled.path, "sm_90a", [kernel])[kernel]
    (at,) = [i for i, one in enumerate(code) if one.name.startswith("MEMBAR")]
    assert 0 not in code[at].waits
    after = [one.name.split(".")[0] for one in code[at:]]
    assert after.index("FENCE") < after.index("BAR") < after.index("HGMMA") < after.index("LDGSTS")
    assert "DEPBAR" in [one.name.split(".")[0] for one in code[at - 12 : at]]


def loads_before_a_store(code: Sequence[Instruction]) -> int:
    stores = [i for i, one in enumerate(code) if one.name.startswith("STG")]
    return sum(is_wide_load(one) for one in code[: stores[0]])


def most_loads_in_a_row(code: Sequence[Instruction]) -> int:
    """The most 16-byte loads between two instructions that wait for one: a load that is needed ends the row."""
    most = row = 0
    for one in code:
        if is_wide_load(one):
            row += 1
            most = max(most, row)
        elif one.name.startswith(("FADD", "FFMA", "FMUL", "HADD2", "BRA", "BAR")):
            row = 0
    return most


def is_wide_load(one: Instruction) -> bool:
    return one.name.startswith("LDG") and "128" in one.name


CHECKS = {
    "modulate_codebook": (check_wide_loads,),
    "norm": (check_statistics_loads,),
    "codebook": (check_proxy_fence,),
}


def test_the_docs_have_the_table_of_limits() -> None:
    text = (REPOSITORY / "docs" / "cuda.md").read_text()
    for limit in LIMITS.values():
        assert f" | {limit.registers} | {limit.blocks} | {limit.few or ''} | {limit.dynamic or ''} |" in text


def test_what_the_checks_refuse() -> None:
    load, store = Instruction("LDG.E.128.CONSTANT", frozenset()), Instruction("STG.E.128", frozenset({0}))
    add = Instruction("FADD", frozenset({0}))
    assert loads_before_a_store([load, load, store, load]) == 2
    assert most_loads_in_a_row([load, add, load, add]) == 1
    with pytest.raises(AssertionError, match="uses local memory"):
        check_resources(Resources("spade_plan_sum", "sm_80", 30, 0, 8))
    with pytest.raises(AssertionError, match="may use 80 registers"):
        check_resources(Resources("spade_modulate_codebook_wide_float16", "sm_89", 81, 0, 0))
    with pytest.raises(AssertionError, match="1 blocks fit"):
        check_resources(Resources("spade_modulate_plane_float16", "sm_86", 40, 50 << 10, 0))


@pytest.mark.parametrize(
    ("registers", "shared", "architecture", "blocks"),
    [(78, 0, "sm_90a", 3), (80, 0, "sm_80", 3), (81, 0, "sm_80", 2), (32, 0, "sm_89", 6), (32, 0, "sm_90a", 8),
     (64, 48 << 10, "sm_86", 2), (40, 147456, "sm_100", 1)],
)  # fmt: skip
def test_blocks_of_a_multiprocessor(registers: int, shared: int, architecture: str, blocks: int) -> None:
    assert Resources("any", architecture, registers, shared, 0).blocks() == blocks


def main() -> None:
    """Check every source, and write down that it was."""
    for source in WITH_KERNELS:
        with TemporaryDirectory() as folder:
            check_source(source, Path(folder))
        print(f"{source}: checked")
    CHECKED.write_text(json.dumps(fingerprints(), indent=4) + "\n")


if __name__ == "__main__":
    main()
