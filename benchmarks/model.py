"""The whole generator against its peers: same weights and label maps, each in a process of its own, in turn.

    python -m benchmarks.model --preset coco --labels DIR --peers torch-fp32,openvino-bf16 --json out.json

All start at labels and instances; PyTorch's and our time includes the checks of a request, the other peers' does not.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.maps import Maps, labels_name, read_maps
from spade_core.config import PRESETS, GeneratorConfig, preset

PEERS = ("torch-fp32", "torch-bf16", "onnxruntime", "openvino-fp32", "openvino-bf16")
REFERENCE = "torch-fp32"
OURS = ("cpu-fp32", "cpu-bf16", "torch-codebook-fp32", "torch-codebook-bf16")

Array = npt.NDArray[Any]
Run = Callable[[Array, Array | None, Array, Array | None], Array]
"""(labels, instances, symbols, style) of one batch -> image float32 [N, 3, H, W] in -1..1."""


@dataclass(frozen=True)
class Row:
    """One engine at one batch size. Times are of a whole batch, over maps and repeats; errors against float32 dense."""

    name: str
    engine: str
    form: str
    precision: str
    batch: int
    seconds_median: float
    seconds_min: float
    seconds_max: float
    max_error: float
    psnr_db: float


def describe(name: str) -> tuple[str, str, str]:
    """(engine, form, precision) of a row's name."""
    if name.startswith("torch-codebook"):
        return "torch", "codebook", name.rsplit("-", 1)[1]
    engine, _, precision = name.partition("-")
    return engine, "codebook" if engine == "cpu" else "dense", precision or "fp32"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(named.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": named.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "isa": [flag for flag in wanted if flag in flags],
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def runner(name: str, config: GeneratorConfig, weights: Path | None, onnx: Path, threads: int) -> Run:
    """Load the engine or peer called `name`."""
    engine, form, precision = describe(name)
    if engine == "torch":
        return _torch_runner(config, weights, form, precision, threads)
    if engine == "cpu":
        return _cpu_runner(config, weights, precision, threads)
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        return lambda labels, instances, _s, style: np.asarray(session.run(None, _feed(labels, instances, style))[0])
    import openvino

    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(onnx), "CPU", hints)
    return lambda labels, instances, _s, style: np.array(model(_feed(labels, instances, style))[0])


def _feed(labels: Array, instances: Array | None, style: Array | None) -> dict[str, Array]:
    feed = {"labels": labels, "instances": instances, "style": style}
    return {name: array for name, array in feed.items() if array is not None}


def _torch_runner(config: GeneratorConfig, weights: Path | None, form: str, precision: str, threads: int) -> Run:
    from serving.engines.load import load_checkpoint
    from serving.engines.torch import TorchEngine

    generator = load_checkpoint(weights, config.preset).generator
    engine = TorchEngine(generator, precision, form, threads=threads)  # type: ignore[arg-type]
    return lambda labels, instances, _s, style: engine.image(labels, instances, style).numpy()


def _cpu_runner(config: GeneratorConfig, weights: Path | None, precision: str, threads: int) -> Run:
    from serving.engines.cpu import CpuEngine
    from serving.engines.load import load_checkpoint

    generator = load_checkpoint(weights, config.preset).generator
    engine = CpuEngine(generator, precision, threads, cache_bytes=0)  # every call is a map never seen before
    return lambda labels, instances, _s, style: engine.image(labels, instances, style)


def measure(run: Run, maps: Maps, batch: int, repeats: int) -> tuple[list[float], Array]:
    """Seconds of every call, and the images of all maps [N, 3, H, W]. One untimed call per batch comes first."""
    seconds: list[float] = []
    images: list[Array] = []
    for first in range(0, len(maps.labels) - batch + 1, batch):
        part = slice(first, first + batch)
        args = (
            maps.labels[part],
            None if maps.instances is None else maps.instances[part],
            maps.symbols[part],
            None if maps.style is None else maps.style[part],
        )
        images.append(run(*args))
        for _ in range(repeats):
            began = time.perf_counter()
            run(*args)
            seconds.append(time.perf_counter() - began)
    return seconds, np.concatenate(images)


def worker(spec: dict[str, Any]) -> None:
    """Measure one engine in this process; the parent reads seconds and images from `spec["out"]`."""
    weights = Path(spec["weights"]) if spec["weights"] else None
    config = _config(spec["preset"], weights)
    maps = read_maps(config, spec["labels"] and Path(spec["labels"]))
    run = runner(spec["name"], config, weights, Path(spec["onnx"]), spec["threads"])
    results: dict[str, Any] = {}
    for batch in spec["batches"]:
        seconds, images = measure(run, maps, batch, spec["repeats"])
        results[f"seconds_{batch}"], results[f"images_{batch}"] = np.array(seconds), images
    np.savez(spec["out"], **results)


def _config(preset_name: str, weights: Path | None) -> GeneratorConfig:
    if weights is None:
        return preset(preset_name)
    from spade_core.checkpoints import load

    return load(weights).config


def rows_of(name: str, results: Any, reference: Any, batches: tuple[int, ...]) -> list[Row]:
    """The rows of one engine's results, errors taken against the reference's images of the same batch size."""
    engine, form, precision = describe(name)
    rows = []
    for batch in batches:
        seconds = results[f"seconds_{batch}"]
        error = np.abs(results[f"images_{batch}"].astype(np.float64) - reference[f"images_{batch}"])
        mse = float(np.mean(error**2))
        psnr = 10 * np.log10(4 / mse) if mse else float("inf")
        rows.append(
            Row(name, engine, form, precision, batch, float(np.median(seconds)), float(seconds.min()),
                float(seconds.max()), float(error.max()), round(float(psnr), 1))
        )  # fmt: skip
    return rows


def table(rows: list[Row], batch: int) -> Table:
    """The rows of one batch size; `x` is the time of the row over the time of the fastest row of ours."""
    best = min((r.seconds_median for r in rows if r.batch == batch and r.name in OURS), default=float("nan"))
    out = Table(
        "engine", "form", "precision", "ms median", "ms min..max", "x", "max error", "PSNR dB", title=f"batch {batch}"
    )
    for row in sorted((r for r in rows if r.batch == batch), key=lambda r: r.seconds_median):
        out.add_row(
            row.engine, row.form, row.precision, f"{row.seconds_median * 1e3:.0f}",
            f"{row.seconds_min * 1e3:.0f}..{row.seconds_max * 1e3:.0f}", f"{row.seconds_median / best:.2f}",
            f"{row.max_error:.1e}", f"{row.psnr_db:.1f}",
        )  # fmt: skip
    return out


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.split(",") if name)
    unknown = [name for name in names if name not in PEERS + OURS]
    if unknown:
        raise click.BadParameter(f"expected names out of {', '.join(PEERS + OURS)} but got {', '.join(unknown)}")
    return names


@click.command()
@click.option(
    "--preset", "preset_name", type=click.Choice(list(PRESETS)), default="coco", show_default=True, help="Architecture."
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint; without it, seeded weights.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of label maps, or one holding label/ and inst/. Without it, drawn maps.",
)
@click.option("--engines", default=",".join(OURS), callback=_names, show_default=True, help="Ours, by name.")
@click.option("--peers", default=",".join(PEERS), callback=_names, show_default=True, help="Peers, by name.")
@click.option("--batches", default="1,8", show_default=True, help="Batch sizes.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Timed calls per batch of maps.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine; default: all cores.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here.")
@click.option("--worker", "worker_spec", hidden=True, help="One engine, as the parent runs it.")
def main(
    preset_name: str, weights: Path | None, labels: str | None, engines: tuple[str, ...], peers: tuple[str, ...],
    batches: str, repeats: int, threads: int | None, json_path: Path | None, worker_spec: str | None,
) -> None:  # fmt: skip
    """Time the generator and its peers on the same weights and label maps, and show the ratio and the error of each."""
    if worker_spec:
        worker(json.loads(worker_spec))
        return
    console = Console()
    sizes = tuple(int(size) for size in batches.split(","))
    names = tuple(dict.fromkeys((REFERENCE, *peers, *engines)))
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder, "dense.onnx")
        if {"onnxruntime", "openvino-fp32", "openvino-bf16"} & set(names):
            from export.onnx import export_dense
            from serving.engines.load import load_checkpoint

            console.print(f"exporting the dense graph of {preset_name} to ONNX")
            export_dense(load_checkpoint(weights, preset_name).generator, onnx)
        rows: list[Row] = []
        for name in names:
            console.print(f"measuring {name}")
            out = Path(folder, f"{name}.npz")
            spec = {
                "name": name, "preset": preset_name, "weights": str(weights) if weights else None, "labels": labels,
                "onnx": str(onnx), "batches": sizes, "repeats": repeats, "out": str(out),
                "threads": threads or len(os.sched_getaffinity(0)),
            }  # fmt: skip
            subprocess.run([sys.executable, "-m", "benchmarks.model", "--worker", json.dumps(spec)], check=True)
            with np.load(out) as results, np.load(Path(folder, f"{REFERENCE}.npz")) as reference:
                rows += rows_of(name, results, reference, sizes)
            if json_path:  # after each engine, so that an interrupted run keeps what it measured
                report = {"preset": preset_name, "labels": labels_name(labels), "rows": [asdict(r) for r in rows]}
                write_report(json_path, report)
    for size in sizes:
        console.print(table(rows, size))


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write what was measured so far as JSON, with what it was taken on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine()} | report, indent=1) + "\n")


if __name__ == "__main__":
    main()
