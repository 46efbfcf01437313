"""Run by test_tensorrt.py with the real bindings on PYTHONPATH: looks up every name that the sources use.

tensorrt_probe.py names FILE..     every trt.A.B and trtp.A in the files is there
tensorrt_probe.py build ONNX       the build, up to the first call that needs TensorRT's library
tensorrt_probe.py plugin           both plugins, registered and asked for their kernel
tensorrt_probe.py options          every builder flag, by the name it is set with
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorrt as trt
import tensorrt.plugin as trtp
from tensorrt_names import names


def build(onnx_path: Path) -> dict[str, str]:
    from export.tensorrt.builder import build_engine
    from export.tensorrt.library import EngineError, choose, load
    from export.tensorrt.options import EngineOptions

    try:
        plan = onnx_path.with_suffix(".plan")
        build_engine(load("tensorrt"), onnx_path, plan, EngineOptions(plugin=False), lambda *_: True)
    except EngineError as error:
        return {"refused": str(error), "auto": choose("auto").kind}
    return {}


def plugin() -> list[dict[str, Any]]:
    import tensorrt.plugin._tensor as tensor

    from export.tensorrt.plugin import register

    register(ptx=lambda: "// ptx", lazy=True)
    out = []
    for name in ("Modulate", "ModulateLeaky"):
        defined = getattr(trtp.op.spade, name)
        descriptions = [trtp.TensorDesc(tensor.ShapeExprs(rank, _is_dummy=True), dtype) for rank, dtype in (
            (4, trt.float16), (2, trt.float16), (3, trt.int32))]  # fmt: skip
        (like,) = [defined.register_func(*descriptions)]
        kernel, ptx, launch, arguments = defined.aot_impl_func(*descriptions, (like,), None)
        assert isinstance(launch, trtp.KernelLaunchParams)
        assert all(isinstance(argument, trtp.SymInt32) for argument in arguments)
        out.append({"inputs": defined.input_tensor_names, "outputs": defined.num_outputs, "kernel": kernel, "ptx": ptx,
                    "arguments": len(arguments), "output_dtype": str(like.dtype)})  # fmt: skip
    return out


def no_nvcc() -> str:
    import export.tensorrt.builder as builder
    from export.tensorrt.library import EngineError

    def missing(_source: str) -> str:
        raise builder.ToolkitError("[cuda] expected nvcc on PATH but found none")

    builder.compile_ptx = missing
    try:
        builder._plugin_ptx()
    except EngineError as error:
        return str(error)
    return "compiled"


def options() -> dict[str, Any]:
    from export.tensorrt.builder import ProgressMonitor, configure, network_flags
    from export.tensorrt.library import implementation, load
    from export.tensorrt.options import EngineOptions

    class Config:
        """Records the settings in place of TensorRT's library, which is not installed."""

        def __init__(self) -> None:
            self.flags: list[str] = []

        def set_flag(self, flag: trt.BuilderFlag) -> None:
            self.flags.append(flag.name)

    config: Any = Config()
    library = load("tensorrt")
    configure(library, config, EngineOptions(strip_weights=True, version_compatible=True, hardware_compatible=True))
    steps: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, of: int) -> bool:
        steps.append((phase, done, of))
        return done < 2

    monitor_class = implementation(ProgressMonitor, trt.IProgressMonitor)
    monitor = monitor_class(progress)
    assert isinstance(monitor, trt.IProgressMonitor)
    monitor.phase_start("tactics", None, 3)
    going = [monitor.step_complete("tactics", step) for step in range(3)]

    def interrupted(*_arguments: object) -> bool:
        raise KeyboardInterrupt

    ctrl_c = monitor_class(interrupted)
    going.append(ctrl_c.step_complete("tactics", 0))
    return {
        "flags": sorted(config.flags), "level": config.hardware_compatibility_level.name,
        "verbosity": config.profiling_verbosity.name, "network": network_flags(library), "going": going, "steps": steps,
        "stopped": monitor.stopped, "interrupted": ctrl_c.interrupted,
    }  # fmt: skip


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    results: dict[str, Any] = {
        "names": lambda: names([Path(argument) for argument in arguments], trt=trt, trtp=trtp, tensorrt=trt),
        "build": lambda: build(Path(arguments[0])),
        "plugin": plugin,
        "no-nvcc": no_nvcc,
        "options": options,
    }
    print(json.dumps(results[command]()))
