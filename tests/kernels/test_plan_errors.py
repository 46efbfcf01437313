"""Every refusal of the plan names the value, the limit and the fix."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.native import native
from kernels.ops.plan import Level, PlanError, concatenate, plan, plan_numpy

GOOD: dict[str, Any] = {"symbols": np.zeros((2, 4, 6), np.uint16), "sizes": [(4, 6)], "n_symbols": 3, "kernel_size": 3}
BAD_SYMBOL = GOOD["symbols"].copy()
BAD_SYMBOL[1, 2, 5] = BAD_SYMBOL[1, 3, 0] = 9
SYMBOLS = "[plan] expected symbols uint16 [N, H, W] but got "

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"symbols": GOOD["symbols"].astype(np.int64)},
        SYMBOLS + "int64 [2, 4, 6]; convert the dtype or add the batch axis",
    ),
    ({"symbols": GOOD["symbols"][0]}, SYMBOLS + "uint16 [4, 6]; convert the dtype or add the batch axis"),
    ({"symbols": GOOD["symbols"].astype(">u2")}, SYMBOLS + ">u2 [2, 4, 6]; convert the dtype or add the batch axis"),
    ({"symbols": GOOD["symbols"][:0]}, "every size at least 1 but got [0, 4, 6]; pass at least one map of one pixel"),
    ({"symbols": GOOD["symbols"][:, :, :0]}, "every size at least 1 but got [2, 4, 0]; pass at least one map"),
    (
        {"symbols": BAD_SYMBOL},
        "[plan] expected symbols below n_symbols 3 but got 9 at map 1, row 2, column 5; correct the map or n_symbols",
    ),
    ({"symbols": np.full((1, 1, 1), 3, np.uint16)}, "below n_symbols 3 but got 3 at map 0, row 0, column 0"),
    ({"n_symbols": 0}, "[plan] expected n_symbols in 1..65535 but got 0; uint16 holds the symbols and one value for"),
    ({"n_symbols": 65536}, "[plan] expected n_symbols in 1..65535 but got 65536"),
    ({"kernel_size": 2}, "[plan] expected kernel_size 1, 3 or 5 but got 2; use the size of SPADE's own convs"),
    ({"kernel_size": 7}, "[plan] expected kernel_size 1, 3 or 5 but got 7"),
    ({"sizes": [(4, 6), (0, 6)]}, "[plan] expected a level of at least 1x1 and at most 268435456 pixels"),
    ({"sizes": [(4, -1)]}, "but got 4x-1; use the level sizes of the configuration"),
    ({"sizes": [(1 << 14, 1 << 14)]}, "(with a border of 2) but got 16384x16384"),
]


@pytest.mark.parametrize("function", [plan, plan_numpy])
@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_refusal_names_value_limit_and_fix(
    function: Callable[..., list[Level]], change: dict[str, Any], message: str
) -> None:
    function(**GOOD)
    with pytest.raises(PlanError) as caught:
        function(**(GOOD | change))
    assert message in str(caught.value)


def levels(kernel_size: int = 3, sizes: Sequence[tuple[int, int]] = ((4, 6),)) -> list[Level]:
    return plan(GOOD["symbols"], sizes, GOOD["n_symbols"], kernel_size)


def test_plans_of_different_sizes_do_not_concatenate() -> None:
    with pytest.raises(PlanError, match=r"same number of levels, but got numbers of levels \[1, 2\]; plan every map"):
        concatenate([levels(), levels(sizes=[(4, 6), (2, 3)])])
    with pytest.raises(PlanError, match=r"at least one plan, .* but got numbers of levels \[\]"):
        concatenate([])
    with pytest.raises(PlanError, match=r"one size and kernel size but got .*\[\(\(2, 3\), 9\), \(\(4, 6\), 9\)\]"):
        concatenate([levels(), levels(sizes=[(2, 3)])])
    with pytest.raises(PlanError, match=r"one size and kernel size but got .*\[\(\(4, 6\), 1\), \(\(4, 6\), 9\)\]"):
        concatenate([levels(), levels(kernel_size=1)])


def test_a_batch_with_more_patches_than_int32_counts_is_refused() -> None:
    endless = replace(levels()[0], patches3=np.broadcast_to(np.zeros((1, 9), np.int32), (2**31, 9)))
    with pytest.raises(PlanError, match=r"at most 2147483647 patches in a batch but got 21474\d+; use a smaller batch"):
        concatenate([[endless], levels()])


def test_the_native_module_checks_on_its_own_too() -> None:
    maps = GOOD["symbols"]
    with pytest.raises(ValueError, match=r"n_symbols is not in 1\.\.65535"):
        native.plan_maps(maps, [(4, 6)], 65536, 3, None)
    with pytest.raises(ValueError, match="kernel_size is not 1, 3 or 5"):
        native.plan_maps(maps, [(4, 6)], 3, 4, None)
    with pytest.raises(ValueError, match="a height or width is below 1"):
        native.plan_maps(maps, [(4, 6), (4, 0)], 3, 3, None)
    with pytest.raises(ValueError, match="rows and out differ in size"):
        native.rebase(np.zeros(3, np.int32), 0, 0, 0, np.zeros(2, np.int32))
    with pytest.raises(TypeError):
        native.plan_maps(maps.astype(np.int32), [(4, 6)], 3, 3, None)


def test_a_missing_native_module_says_how_to_build_it() -> None:
    code = "import sys; sys.modules['kernels._native'] = None; import kernels.ops.plan"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError: [kernels] expected the compiled module kernels._native" in done.stderr
    assert "build it with `pip install -e .` in the repository root" in done.stderr


def test_the_stub_lists_what_the_native_module_has() -> None:
    stub = ast.parse((Path(__file__).parents[2] / "kernels" / "_native.pyi").read_text())
    functions = {node.name: [a.arg for a in node.args.args] for node in stub.body if isinstance(node, ast.FunctionDef)}
    constants = {
        node.target.id for node in stub.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    classes = {node.name for node in stub.body if isinstance(node, ast.ClassDef)}
    assert {name for name in dir(native) if not name.startswith("_")} == set(functions) | constants | classes
    for name, arguments in functions.items():
        signature = (getattr(native, name).__doc__ or "").splitlines()[0]
        assert all(f"{argument}: " in signature for argument in arguments), signature
