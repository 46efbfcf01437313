"""A generator as an ONNX file: the dense graph, or the codebook graph with the plan's tensors as inputs.

Batch-norm statistics are folded into the weights (checkpoints hold spectral norm folded already). The graph itself has
the precision: weights and activations are float32, float16 or bfloat16; style and float images stay float32.
"""

from __future__ import annotations

import copy
import json
import logging
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import nn

from export.functions import functions, fuse_leaky_relu
from export.graphs import CodebookGraph, DenseGraph, ImageKind
from spade_core.config import STYLE_DIM, GeneratorConfig
from spade_core.files.whole_file import sync, write_whole
from spade_core.maps.colours import class_names, saved_palette
from spade_core.models.generator import Generator

Precision = Literal["fp32", "fp16", "bf16"]
Form = Literal["dense", "codebook"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OPSET = 25  # the highest that TensorRT 11.4 reads
MAX_BATCH = 256
# A protobuf message holds at most 2 GiB. 64 MiB are left for the graph, so weights may take the rest.
EXTERNAL_ABOVE_BYTES = 2**31 - 2**26
PREFIX = "spade."


class ExportError(ValueError):
    """A generator that cannot be exported as requested; the message holds the value and the fix."""


@dataclass(frozen=True)
class ExportOptions:
    """How a generator is exported.

    Attributes:
        precision: of weights and activations.
        image: the output: float32 [N, 3, H, W] in -1..1, or uint8 [N, H, W, 3].
        size: height and width; None is the size of the configuration.
        metadata: more properties of the model.
    """

    precision: Precision = "fp32"
    image: ImageKind = "float"
    size: tuple[int, int] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def export_graph(generator: Generator, path: Path, form: Form, options: ExportOptions = ExportOptions()) -> None:
    """Write the dense or the codebook graph of a generator. The batch is dynamic. Raises ExportError.

    Inputs of the dense graph: labels uint8 [N, H, W]; instances int32 [N, H, W] and style float32 [N, 256] where the
    model has them. The graph does not check labels. All operators are standard.

    Inputs of the codebook graph: for each level i, smallest first, int32 patches3_i [U3, k*k], patches5_i [U5, k*k]
    and index_i [N, h, w], as in `kernels.ops.plan.Level`, with dynamic patch counts; and style float32 [N, 256] or,
    without a style input, start int32 [N, h0, w0], the symbols at the start size. Operators are standard, except the
    modulate step, which is a local function (`export.functions`).
    """
    sized = _sized(generator, options.size)
    graph = (DenseGraph if form == "dense" else CodebookGraph)(sized, DTYPES[options.precision], options.image)
    model = _traced(graph, (_dense_example if form == "dense" else _codebook_example)(sized.config))
    if form == "codebook":
        fuse_leaky_relu(model.graph)
        model.functions.extend(functions(OPSET))
    _describe(model, sized.config, form, options)
    save(model, path)


@dataclass(frozen=True)
class _Example:
    """Example inputs for the exporter, which tell it shapes and dtypes.

    Attributes:
        shapes: which axes are dynamic, in the nesting of args and kwargs.
        names: of the graph's inputs, in order.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: Any
    names: Sequence[str]


def _dense_example(config: GeneratorConfig) -> _Example:
    batch = _axis("batch", MAX_BATCH)
    # A batch of two: the exporter takes a size of one for a constant.
    kwargs: dict[str, Any] = {"labels": torch.zeros((2, config.height, config.width), dtype=torch.uint8)}
    if config.instance_edges:
        kwargs["instances"] = torch.zeros((2, config.height, config.width), dtype=torch.int32)
    if config.style:
        kwargs["style"] = torch.zeros((2, STYLE_DIM))
    return _Example((), kwargs, {name: {0: batch} for name in kwargs}, list(kwargs))


def _codebook_example(config: GeneratorConfig) -> _Example:
    batch = _axis("batch", MAX_BATCH)
    h0, w0 = config.level_sizes[0]
    start = torch.zeros((2, STYLE_DIM)) if config.style else torch.zeros((2, h0, w0), dtype=torch.int32)
    names, levels, dynamic = ["style" if config.style else "start"], [], []
    for i, (height, width) in enumerate(config.level_sizes):
        shapes = ((3, config.spade_kernel**2), (4, config.spade_kernel**2), (2, height, width))
        levels.append(tuple(torch.zeros(shape, dtype=torch.int32) for shape in shapes))
        dynamic.append(({0: _axis(f"u3_{i}")}, {0: _axis(f"u5_{i}")}, {0: batch}))
        names += [f"patches3_{i}", f"patches5_{i}", f"index_{i}"]
    return _Example((start, levels), {}, ({0: batch}, dynamic), names)


def _axis(name: str, largest: int | None = None) -> Any:
    return torch.export.Dim(name, min=1, max=largest)


def read_metadata(model: Any) -> dict[str, str]:
    """The properties of a model that `spade export` wrote, without their prefix. Raises ExportError."""
    found = {p.key.removeprefix(PREFIX): p.value for p in model.metadata_props if p.key.startswith(PREFIX)}
    if "config" not in found:
        raise ExportError("[export] expected an ONNX file of `spade export` but got one without its properties")
    return found


def _sized(generator: Generator, size: tuple[int, int] | None) -> Generator:
    """A copy of the generator in eval mode, with the image size in its configuration."""
    config = generator.config
    size = size or (config.height, config.width)
    if config.style and size != (config.height, config.width):
        raise ExportError(
            f"[export] expected {config.height}x{config.width}, the one size of a model with a style input, "
            f"but got {size[0]}x{size[1]}; leave --size out"
        )
    generator = copy.deepcopy(generator).eval()
    generator.config = replace(config, height=size[0], width=size[1])
    return generator


def _traced(graph: nn.Module, example: _Example) -> Any:
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # hides a line for each operator of torchvision, which is not installed
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.onnx.export(
                graph,
                example.args,
                kwargs=example.kwargs,
                dynamo=True,
                opset_version=OPSET,
                input_names=example.names,
                output_names=["image"],
                dynamic_shapes=example.shapes,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None
    return program.model_proto


def _describe(model: Any, config: GeneratorConfig, form: Form, options: ExportOptions) -> None:
    """Replace the exporter's properties, which hold stack traces of this machine, by the model's own."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input):
        del part.metadata_props[:]
    for part in (*model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
    model.producer_name, model.graph.name = "spade-serve", f"spade_{form}"
    properties = {
        **options.metadata,
        "format": "1",
        "form": form,
        "precision": options.precision,
        "image": options.image,
        "preset": config.preset,
        "config": json.dumps(config.to_dict()),
        "classes": json.dumps(class_names(config)),
        "palette": json.dumps(saved_palette(config, options.metadata).tolist()),
    }
    onnx.helper.set_model_props(model, {PREFIX + key: value for key, value in properties.items()})


def save(model: Any, path: Path, external_above_bytes: int = EXTERNAL_ABOVE_BYTES) -> None:
    """Write a model, whole or not at all. Weights above the limit go to a file `<name>.<hex>.data` beside the model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(f"{path.name}.{secrets.token_hex(4)}.data")
    old = set(path.parent.glob(f"{path.name}.*.data"))
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > external_above_bytes

    def write(draft: Path) -> None:
        if external:
            onnx.save_model(model, str(draft), save_as_external_data=True, location=data.name)
            sync(data)
        else:
            onnx.save_model(model, str(draft))

    try:
        write_whole(path, write)
    except BaseException:
        data.unlink(missing_ok=True)
        raise
    for stale in old:
        stale.unlink()
