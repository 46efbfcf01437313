"""Write the model repository that Triton reads: a folder for each model, with config.pbtxt and model.py."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from serving.engines.entry_point import EntryPoint
from serving.protocol import RequestTimings
from serving.triton.protocol import PACKAGE, write_parameters
from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.maps.colours import saved_palette
from spade_core.models.style import STYLES

MODEL_CODE = Path(__file__).parent / "models"
_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class ModelOptions:
    """The model to serve, and how its requests are batched and queued.

    Attributes:
        weights: a checkpoint (.safetensors); None for the seeded, untrained weights of the preset.
        preset: the preset of the seeded weights; a checkpoint carries its own configuration.
        engine, precision, threads: arguments of `serving.engines.choose.load_engine`.
        max_batch: most label maps in one batch, 1 or more.
        queue_delay_us: longest time that a batch waits for more requests before it is full, microseconds.
        queue_size: label maps that may wait; more are refused at once (UNAVAILABLE, HTTP 503).
        queue_timeout_s: longest wait of a request; after that the request is refused (UNAVAILABLE, HTTP 503).
        decoders: processes that decode and encode images for `spade_image`.
        max_pixels: most pixels (height times width) of one label map for `spade`. Bounds the memory of a request.
        session_mib: memory for the sessions of `spade`, MiB; 0 keeps none, so that sessions draw every map anew.
        sha256: what the weights must hash to, 64 hex digits; None for the checksum file beside them (`FILE.sha256`, as
            sha256sum writes it) or, without such a file, for any weights.
        entry: the function that returns the model, in place of `weights` and `preset`.
    """

    weights: Path | None = None
    preset: str = "demo"
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    max_batch: int = 8
    queue_delay_us: int = 2000
    queue_size: int = 128
    queue_timeout_s: float = 30.0
    decoders: int = 2
    max_pixels: int = 1 << 20
    session_mib: int = 1024
    sha256: str | None = None
    entry: EntryPoint | None = None

    def __post_init__(self) -> None:
        limits = {
            "max_batch": 1,
            "queue_delay_us": 0,
            "queue_size": 1,
            "decoders": 1,
            "threads": 1,
            "max_pixels": 1,
            "session_mib": 0,
        }
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"[serve] expected {name} of {least} or more but got {value}")
        if self.queue_timeout_s <= 0:
            raise ValueError(f"[serve] expected queue_timeout_s above 0 but got {self.queue_timeout_s}")
        if self.sha256 is not None:
            read_sha256(self.sha256, "--sha256")

    def expected_sha256(self) -> str | None:
        """What the weights must hash to: as given, or as the checksum file says. Raises ValueError, OSError."""
        if self.sha256 is not None:
            return read_sha256(self.sha256, "--sha256")
        file = None if self.weights is None else self.weights.with_name(f"{self.weights.name}.sha256")
        if file is None or not file.is_file():
            return None
        return read_sha256(file.read_text(encoding="utf-8", errors="replace").partition(" ")[0], f"'{file}'")


def read_sha256(text: str, where: str) -> str:
    """A sha256 in hex digits. Raises ValueError for any other text."""
    digits = text.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError(f"[serve] expected a sha256 of 64 hex digits in {where} but got {text.strip()[:80]!r}")
    return digits


def write_repository(
    root: Path, options: ModelOptions, config: GeneratorConfig, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write both models under `root`, which is made where absent. Returns `root`.

    `config` is the configuration of the served weights, `metadata` their fields.
    """
    for model in (spade_config(options, config), spade_image_config(options, config, metadata)):
        folder = root / model.name
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(text_format.MessageToString(model), encoding="utf-8")
        shutil.copyfile(MODEL_CODE / model.name / "model.py", folder / "1" / "model.py")
    return root


def spade_config(options: ModelOptions, config: GeneratorConfig) -> Any:
    """The configuration of `spade` on the Python backend.

    A model with a style input has one size, which the configuration fixes: Triton then refuses other shapes by itself,
    and a benchmark need not be told one.
    """
    model = _model("spade", options, 1)
    size = [config.height, config.width] if config.style else [-1, -1]
    model.input.extend(
        [
            pb.ModelInput(name="labels", data_type=pb.TYPE_UINT8, dims=size, optional=True),
            pb.ModelInput(name="label_ids", data_type=pb.TYPE_INT32, dims=size, optional=True),
            pb.ModelInput(name="instances", data_type=pb.TYPE_INT32, dims=size, optional=True),
            *_style_inputs(),
        ]
    )
    model.output.append(pb.ModelOutput(name="image", data_type=pb.TYPE_UINT8, dims=[*size, 3]))
    model.output.append(pb.ModelOutput(name="timings", data_type=pb.TYPE_FP32, dims=[len(fields(RequestTimings))]))
    model.output.append(pb.ModelOutput(name="identity", data_type=pb.TYPE_UINT8, dims=[-1]))
    if config.style:
        model.input.append(pb.ModelInput(name="photo", data_type=pb.TYPE_UINT8, dims=[-1], optional=True))
        model.output.append(pb.ModelOutput(name="style", data_type=pb.TYPE_FP32, dims=[STYLE_DIM]))
    set_parameters(
        model,
        {
            "package": PACKAGE,
            "published": False,
            "weights": None if options.weights is None else str(options.weights.resolve()),
            "preset": options.preset,
            "entry": None if options.entry is None else asdict(options.entry),
            "engine": options.engine,
            "precision": options.precision,
            "threads": options.threads,
            "sha256": options.expected_sha256(),
            "max_pixels": options.max_pixels,
            "session_mib": options.session_mib,
            "queue_delay_us": options.queue_delay_us,
            "queue_size": options.queue_size,
            "queue_timeout_s": options.queue_timeout_s,
        },
    )
    return model


def spade_image_config(
    options: ModelOptions,
    config: GeneratorConfig,
    metadata: Mapping[str, Any] | None = None,
    plain_upstream: bool = False,
) -> Any:
    """The configuration of `spade_image`.

    `metadata`: fields of the weights, which may hold colours of their own.
    `plain_upstream`: `spade` is an engine file, which neither checks requests nor answers timings.
    """
    model = _model("spade_image", options, options.decoders)
    model.input.extend(
        [
            pb.ModelInput(name="label_map", data_type=pb.TYPE_UINT8, dims=[-1]),
            pb.ModelInput(name="instance_map", data_type=pb.TYPE_UINT8, dims=[-1], optional=True),
            *_style_inputs(),
        ]
    )
    model.output.append(pb.ModelOutput(name="image", data_type=pb.TYPE_UINT8, dims=[-1]))
    model.output.append(pb.ModelOutput(name="image_bytes", data_type=pb.TYPE_INT32, dims=[1]))
    model.output.append(pb.ModelOutput(name="timings", data_type=pb.TYPE_FP32, dims=[len(fields(RequestTimings))]))
    model.output.append(pb.ModelOutput(name="info", data_type=pb.TYPE_UINT8, dims=[-1]))
    model.output.append(pb.ModelOutput(name="identity", data_type=pb.TYPE_UINT8, dims=[-1]))
    set_parameters(
        model,
        {
            "config": config.to_dict(),
            "palette": saved_palette(config, metadata or {}).tolist(),
            "styles": (metadata or {}).get(STYLES, ""),
            "plain_upstream": plain_upstream,
            "max_pixels": options.max_pixels,
            "queue_size": options.queue_size,
        },
    )
    return model


def tensorrt_config(options: ModelOptions, config: GeneratorConfig) -> Any:
    """The configuration of `spade` on Triton's own TensorRT backend, for an engine of the dense graph (`model.plan`).

    The inputs are the inputs of the graph. The engine neither checks labels nor makes styles from seeds; `spade_image`
    does both before it calls the engine.
    """
    model = _model("spade", options, 1)
    model.dynamic_batching.CopyFrom(_dynamic_batching(options))
    model.backend = "tensorrt"
    model.default_model_filename = "model.plan"
    height, width = config.height, config.width
    inputs = {"labels": (pb.TYPE_UINT8, [height, width])}
    if config.instance_edges:
        inputs["instances"] = (pb.TYPE_INT32, [height, width])
    if config.style:
        inputs["style"] = (pb.TYPE_FP32, [STYLE_DIM])
    model.input.extend(pb.ModelInput(name=name, data_type=kind, dims=dims) for name, (kind, dims) in inputs.items())
    model.output.append(pb.ModelOutput(name="image", data_type=pb.TYPE_UINT8, dims=[height, width, 3]))
    model.instance_group[0].kind = pb.ModelInstanceGroup.KIND_GPU
    # Under --rate-limit=execution_count, one batch of this model runs at a time, also where other models share the GPU.
    resource = pb.ModelRateLimiter.Resource(name="spade_execution", count=1)
    model.instance_group[0].rate_limiter.CopyFrom(pb.ModelRateLimiter(resources=[resource], priority=1))
    model.optimization.cuda.graphs = True
    for batch in dict.fromkeys((1, options.max_batch)):
        warmup = pb.ModelWarmup(name=f"batch {batch}", batch_size=batch, count=2)
        for name, (kind, dims) in inputs.items():
            warmup.inputs[name].CopyFrom(pb.ModelWarmup.Input(data_type=kind, dims=dims, zero_data=True))
        model.model_warmup.append(warmup)
    return model


def _style_inputs() -> list[Any]:
    return [
        pb.ModelInput(name="style", data_type=pb.TYPE_FP32, dims=[STYLE_DIM], optional=True),
        pb.ModelInput(name="seed", data_type=pb.TYPE_INT64, dims=[1], optional=True),
    ]


def _model(name: str, options: ModelOptions, instances: int) -> Any:
    # KIND_CPU: the engine chooses its device, so Triton does not place the process on a GPU.
    return pb.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=options.max_batch,
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=instances)],
    )


def _dynamic_batching(options: ModelOptions) -> Any:
    """Triton's own queue and batches, for an engine file. Our own models queue by themselves."""
    policy = pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=round(options.queue_timeout_s * _MICROSECONDS),
        allow_timeout_override=True,
        max_queue_size=options.queue_size,
    )
    return pb.ModelDynamicBatching(max_queue_delay_microseconds=options.queue_delay_us, default_queue_policy=policy)


def set_parameters(model: Any, values: dict[str, Any]) -> None:
    """Set or replace parameters. The model reads the parameters with `serving.triton.protocol.read_parameters`."""
    for key, text in write_parameters(values).items():
        model.parameters[key].string_value = text
