"""Which engine and precision a machine gets, and what is refused before any weights are read."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.isa import IsaError, supported_isas
from serving.engines import choose as chooser
from serving.engines.choose import Choice, choose, load_engine, start_engine
from spade_core.config import preset
from spade_core.files.checkpoints import Checkpoint, to_weights
from spade_core.models.seeded import seeded_generator


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def native(*precisions: str) -> object:
    """A stand-in for `choose_isa_of` on a processor with kernels for `precisions`."""

    def isa_of(precision: str) -> str:
        if precision not in precisions:
            raise IsaError(f"no kernels for {precision}")
        return "an isa"

    return isa_of


@pytest.mark.parametrize(("kernels", "precision"), [(("fp32",), "fp32"), (("fp32", "bf16"), "bf16")])
def test_auto_takes_the_fastest_precision_with_kernels(
    monkeypatch: pytest.MonkeyPatch, kernels: tuple[str, ...], precision: str
) -> None:
    monkeypatch.setattr(chooser, "choose_isa_of", native(*kernels))
    choice = choose()
    assert (choice.engine, choice.precision, choice.warning) == ("cpu", precision, "")
    assert str(choice) == f"engine cpu on cpu, {precision}: native kernels, isa an isa"


@pytest.mark.skipif(
    ctypes.util.find_library("cuda") is not None or Path("/dev/kfd").exists(), reason="the driver of a GPU is here"
)
@pytest.mark.skipif(not supported_isas(), reason="no native isa runs on this processor")
def test_without_a_driver_the_cpu_engine_is_chosen_without_pytorch() -> None:
    """PyTorch takes three seconds to import, and is needed for nothing else there."""
    asked = "import sys; from serving.engines.choose import choose; print(choose().engine, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "cpu False\n"


@pytest.mark.parametrize("driver", [True, False])
def test_a_driver_is_a_reason_to_ask_pytorch(monkeypatch: pytest.MonkeyPatch, driver: bool) -> None:
    def load(_name: str) -> object:
        if driver:
            return object()
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    monkeypatch.delitem(sys.modules, "torch")  # a torch that is there was imported anyway
    assert chooser._may_have_gpu() is (driver or sys.platform != "linux")


def test_bf16_without_kernels_for_it_is_slow_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "choose_isa_of", native("fp32"))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    choice = choose("auto", "bf16")
    assert (choice.engine, choice.precision) == ("torch", "bf16")
    assert "ten times slower than fp32" in choice.warning
    assert "--precision fp32" in choice.warning


def test_a_cuda_device_runs_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose() == Choice("torch", "cuda", "bf16", "there is a CUDA device", fallback=True)
    assert choose("auto", "fp16").precision == "fp16"
    with pytest.raises(ValueError, match="but got int8; give --engine cpu"):
        choose("auto", "int8")


def test_what_this_machine_cannot_run_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "choose_isa_of", native("fp32", "bf16"))
    nowhere = Path("nowhere.safetensors")
    for name in ("auto", "torch", "cpu"):
        with pytest.raises(ValueError, match=r"a CUDA device for precision fp16 but found none; use bf16 or fp32"):
            load_engine(name, nowhere, precision="fp16")
    for name in ("auto", "cpu"):
        with pytest.raises(IsaError, match="no kernels for int8"):
            load_engine(name, nowhere, precision="int8")
    with pytest.raises(ValueError, match="engine torch on a CPU but got int8"):
        load_engine("torch", nowhere, precision="int8")
    with pytest.raises(ValueError, match=r"out of auto, fp32, bf16, int8, fp16 but got 'fp8'"):
        load_engine("auto", nowhere, precision="fp8")


def test_auto_takes_fp32_where_the_weights_are_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    if not supported_isas():
        pytest.skip("this processor has no native kernels")
    real = chooser.CpuEngine

    def out_of_range(generator: object, precision: str, threads: int | None, **options: int) -> object:
        if precision == "bf16":
            raise ValueError("out of float16's range")
        return real(generator, precision, threads, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(chooser, "CpuEngine", out_of_range)
    weights = to_weights(Checkpoint(preset("demo"), seeded_generator(preset("demo")), None, {}))
    assert start_engine(weights, Choice("cpu", "cpu", "bf16", "", fallback=True), 1).precision == "fp32"
    with pytest.raises(ValueError, match="out of float16's range"):
        start_engine(weights, Choice("cpu", "cpu", "bf16", ""), 1)
