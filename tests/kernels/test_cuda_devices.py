"""Every call of the CUDA kernels launches on the device of its tensors, whichever device is current.

The emulator has two devices. Its tensors lie on the CPU, so the tests say that they lie on device 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from cuda_emulated import REPOSITORY
from torch import Tensor

from kernels.cuda.codebook.codebook import Codebook, Embed, codebook, embed
from kernels.cuda.host import tensors
from kernels.cuda.host.library import CudaError, Library, Place
from kernels.cuda.image.image import image_conv
from kernels.cuda.modulate.modulate_codebook import modulate_codebook, modulate_codebook_backward
from kernels.cuda.modulate.modulate_dense import modulate_dense, modulate_dense_backward
from kernels.cuda.norm.norm import norm_backward, norm_statistics
from kernels.cuda.plan.plan import CudaPlan

X, ENTRIES = torch.randn(1, 8, 4, 4), torch.randn(3, 16)
INDEX = torch.zeros(1, 4, 4, dtype=torch.int32)
PATCHES = torch.zeros(2, 9, dtype=torch.int32)


def _codebook(library: Library, actv: Tensor) -> None:
    weight, bias = torch.randn(8, 9 * 128), torch.zeros(8)
    codebook(Codebook(actv, PATCHES, weight, bias, torch.empty(2, 8)), library=library)


def _embed(library: Library, table: Tensor) -> None:
    embed(Embed(table, torch.zeros(8), PATCHES, torch.empty(2, 8), relu=True, zero_row=False), library=library)


def _plan(library: Library) -> None:
    plan = CudaPlan((1, 4, 4), [(4, 4)], 3, 3, torch.device("cpu"), library)
    plan.symbols.view(torch.int16).zero_()
    plan.find()
    plan.levels()


def _norm_backward(library: Library) -> None:
    norm_backward(X, X.clone(), norm_statistics(X, "instance", library=library), library=library)


WRAPPERS: Mapping[str, Callable[[Library], Any]] = {
    "modulate_codebook": lambda library: modulate_codebook(X, ENTRIES, INDEX, library=library),
    "modulate_codebook_backward": lambda library: modulate_codebook_backward(X, ENTRIES, INDEX, X, library=library),
    "modulate_dense": lambda library: modulate_dense(X, X, X, norm="instance", library=library),
    "modulate_dense_backward": lambda library: modulate_dense_backward(X, X, X, X, None, library=library),
    "norm": _norm_backward,
    "codebook": lambda library: _codebook(library, torch.randn(2, 128)),
    "embed": lambda library: _embed(library, torch.zeros(9, 2, 8)),
    "plan": _plan,
    "image": lambda library: image_conv(
        X.contiguous(memory_format=torch.channels_last), torch.randn(3, 8, 3, 3).to(memory_format=torch.channels_last),
        torch.zeros(3), values=torch.empty(1, 3, 4, 4), library=library,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_a_call_launches_on_the_device_of_its_tensors(
    emulated: Library, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "device_number", lambda _x: 1)
    before = [emulated._dll.emulated_launches(device) for device in (0, 1)]
    WRAPPERS[name](emulated)
    after = [emulated._dll.emulated_launches(device) for device in (0, 1)]
    assert after[0] == before[0], "a launch went to the current device"
    assert after[1] > before[1]
    assert emulated._use_device(0) == 0, "the device that was current is current again"


def test_every_function_that_launches_has_a_wrapper_above(emulated: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[str] = set()
    for method in ("call", "call_grouped"):
        usual = getattr(Library, method)

        def call(self: Library, op: str, *rest: Any, usual: Any = usual, **arguments: Any) -> None:
            called.add(op)
            usual(self, op, *rest, **arguments)

        monkeypatch.setattr(Library, method, call)
    for run in WRAPPERS.values():
        run(emulated)
    header = (REPOSITORY / "kernels" / "include" / "spade_cuda.h").read_text()
    assert called == set(re.findall(r"SPADE_CUDA_API int32_t spade_cuda_(\w+)\([^)]*void\* stream\)", header))


def test_a_call_that_fails_leaves_the_current_device(emulated: Library) -> None:
    with pytest.raises(CudaError, match="required pointer"):
        emulated.call("norm_statistics", Place(device=1), x=None)
    assert emulated._use_device(0) == 0
    with pytest.raises(
        CudaError, match=r"\[use_device\] CUDA refused the launch: invalid device ordinal; got device=7"
    ):
        emulated.call("norm_statistics", Place(device=7), x=None)


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("modulate_codebook", lambda lib: modulate_codebook(X, ENTRIES.to("meta"), INDEX, library=lib)),
        ("modulate_dense", lambda lib: modulate_dense(X, X, X.to("meta"), library=lib)),
        ("codebook", lambda lib: codebook(Codebook(torch.randn(2, 128), PATCHES.to("meta"), torch.randn(8, 1152),
                                                   torch.zeros(8), torch.empty(2, 8)), library=lib)),
    ],
)  # fmt: skip
def test_tensors_on_two_devices_are_refused(emulated: Library, op: str, call: Callable[[Library], Any]) -> None:
    with pytest.raises(CudaError, match=rf"\[{op}\] expected all tensors on cpu but got one on meta; move it there"):
        call(emulated)
