"""The maps of a file on the model's grid: what every command that draws files reads."""

from __future__ import annotations

from pathlib import Path

from serving.engines.contract import Inputs, check_inputs
from spade_core.config import GeneratorConfig
from spade_core.maps.colours import ColourTable
from spade_core.maps.label_maps import check_pair, read_instance_map, read_label_map, resize_nearest_centred
from spade_core.types import Style

File = Path | bytes


def read_inputs(
    labels: File,
    instances: File | None,
    config: GeneratorConfig,
    *,
    colours: ColourTable | None,
    style: Style | None,
    instances_name: str,
) -> Inputs:
    """Read a label map and its instance map, on Pillow's NEAREST grid of the model's size, as one checked input.

    `colours` looks up label maps in RGB, `style` is float32 [1, 256], `instances_name` is for messages. Raises
    ValueError and OSError.
    """
    whole = read_label_map(labels, colours=colours)
    resized = resize_nearest_centred(whole, config.height, config.width)[None]
    resized_instances = None
    if instances is not None:
        whole_instances = read_instance_map(instances)
        check_pair(whole, whole_instances, f"'{instances_name}'")
        resized_instances = resize_nearest_centred(whole_instances, config.height, config.width)[None]
    return check_inputs(resized, resized_instances, style, config)
