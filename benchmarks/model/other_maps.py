"""Writes label maps that no setting was tuned on, made from a folder of label maps, for `benchmarks.model --labels`.

    python -m benchmarks.model.other_maps --labels DIR --out OTHER

Each map gives its lower right corner at full size, and the whole map mirrored and shifted, which has other patches.
As many drawn scenes come in addition; the int8 engine does not round its weights on these scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image

from spade_core.config import PRESETS, GeneratorConfig
from spade_core.maps.drawn import demo_map
from spade_core.maps.label_maps import check_pair, read_instance_map, read_label_map, resize_nearest_centred
from spade_core.maps.samples import instance_map_path, label_map_paths
from spade_core.types import Array

FIRST_SCENE = 1000  # far from all other seeds of drawn maps
SHIFT = (37, 53)

Named = tuple[str, Array, Array]  # labels and instances [H, W]


def other_maps(config: GeneratorConfig, folder: Path) -> Iterator[Named]:
    """New maps of the model's size, made from the maps of `folder`."""
    size = (config.height, config.width)
    paths = label_map_paths(folder)
    for k, path in enumerate(paths):
        labels = read_label_map(path)
        inst = instance_map_path(folder, path)
        instances = read_instance_map(inst) if inst.is_file() else labels.astype(np.int32)
        check_pair(labels, instances, f"'{inst}'")
        pair = (labels, instances)
        corner = [one[-size[0] :, -size[1] :] for one in pair]
        if corner[0].shape == size:
            yield f"corner-{path.stem}", corner[0], corner[1]
        whole = [np.roll(resize_nearest_centred(one, *size)[:, ::-1], SHIFT, (0, 1)) for one in pair]
        yield f"mirrored-{path.stem}", whole[0], whole[1]
        yield (f"drawn-{k}", *demo_map(FIRST_SCENE + k, config))


def write_map(folder: Path, name: str, labels: Array, instances: Array) -> None:
    """label/NAME.png, grey, and inst/NAME.png, RGB as r + 256 g + 65536 b."""
    for kind, pixels in (("label", labels), ("inst", np.stack([instances >> shift & 255 for shift in (0, 8, 16)], -1))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{name}.png")


@click.command()
@click.option("--preset", "preset_name", type=click.Choice(list(PRESETS)), default="coco", show_default=True,
              help="Architecture whose size the maps get.")  # fmt: skip
@click.option("--labels", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of label maps, or one holding label/ and inst/.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
def main(preset_name: str, labels: Path, out: Path) -> None:
    """Write label maps that differ from the maps that settings were tuned on."""
    count = 0
    for name, label_map, instance_map in other_maps(PRESETS[preset_name], labels):
        write_map(out, name, label_map, instance_map)
        count += 1
    click.echo(f"wrote {count} label maps to {out}")


if __name__ == "__main__":
    main()
