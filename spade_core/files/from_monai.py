"""Weights of MONAI's SPADENet (`torch.save(net.state_dict(), ..)`) to a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spade_core.config import GeneratorConfig, check_fields
from spade_core.files.checkpoints import fill, refuse_non_finite, save, state_of
from spade_core.files.faults import key_faults, refuse_faults, shapes_of
from spade_core.files.found_config import Known
from spade_core.files.manifest import sha256
from spade_core.files.pickled import ConvertError, read_state_dict
from spade_core.models.spadenet import SpadeNet, Widths

_ELSE = "serve it by `spade serve --model module:function`"
_KEYS = (
    (r"^decoder\.", ""),
    (r"^conv_init\.conv\.", "fc."),
    (r"^conv_init\.adn\.A\.weight$", "start_slope"),
    (r"^last_conv\.conv\.", "conv_img."),
    (r"\.mlp_(gamma|beta)\.conv\.", r".mlp_\1.0."),
    (r"\.conv\.(weight|bias)$", r".\1"),
)


@dataclass(frozen=True)
class MonaiReport:
    """The result of `convert_monai`."""

    out: Path
    config: GeneratorConfig
    widths: Widths
    image_range: tuple[float, float]

    def __str__(self) -> str:
        config, (black, white) = self.config, self.image_range
        return (
            f"{self.out}: SPADENet of MONAI, {config.label_nc} classes, {config.height}x{config.width}, channels "
            f"{', '.join(map(str, self.widths.blocks))}, hidden {self.widths.hidden}\n"
            f"No shape tells height and width (--set height=.. --set width=..) and which values are black, {black:g}, "
            f"and white, {white:g} (--image-range)."
        )


def convert_monai(path: Path, out: Path, known: Known, image_range: tuple[float, float]) -> MonaiReport:
    """Write the weights of a SPADENet as a checkpoint at `out`.

    The network is the library's own default but for its sizes: two dimensions, is_vae=False, instance norm, leaky ReLU.

    Args:
        known: fields of the configuration that no shape tells: height, width (256 each without), class_names.
        image_range: the values of the image that become black and white.

    Raises ConvertError for another network or option, ConfigError for wrong fields.
    """
    state = read_state_dict(path)
    _refuse_others(path, state)
    weights = {_renamed(key): tensor for key, tensor in state.items() if key.startswith("decoder.")}
    check_fields(known.fields)
    config = _config(path, weights, known)
    widths = Widths.of(shapes_of(weights))
    with torch.device("meta"):  # only shapes, until the weights are known to fit
        network = SpadeNet(config, widths)
    weights["image_range"] = torch.tensor(image_range)
    faults = key_faults(shapes_of(weights), shapes_of(state_of(network)))
    refuse_faults(
        ConvertError, faults, path,
        "[convert] expected the keys of a SPADENet with MONAI's own norms and activations",
        f"for a network with other options, {_ELSE}",
    )  # fmt: skip
    if widths.blocks[-1] not in (1, 3):
        raise ConvertError(
            f"[convert] expected a SPADENet of 1 or 3 image channels but got {widths.blocks[-1]} in '{path}'; {_ELSE}"
        )
    refuse_non_finite("convert", str(path), weights)
    fill(network, weights)
    save(
        out, network, None, {"trained": "true", "source.generator": path.name, "source.generator.sha256": sha256(path)}
    )
    return MonaiReport(out, config, widths, image_range)


def _renamed(key: str) -> str:
    for pattern, to in _KEYS:
        key = re.sub(pattern, to, key)
    return key


def _refuse_others(path: Path, state: Mapping[str, Tensor]) -> None:
    first = state.get("decoder.blocks.0.norm_0.mlp_shared.conv.weight")
    if first is None:
        found = ", ".join(sorted(state)[:3])
        raise ConvertError(
            f"[convert] expected a SPADENet of MONAI in '{path}' but got keys such as {found}; save "
            "SPADENet(..).state_dict(), or leave out --from monai"
        )
    if first.ndim != 4:
        raise ConvertError(f"[convert] expected a SPADENet in 2 dimensions but got {first.ndim - 2} in '{path}'")
    if "decoder.conv_init.conv.weight" not in state:
        raise ConvertError(f"[convert] expected a SPADENet with is_vae=False but got is_vae=True in '{path}'; {_ELSE}")


def _config(path: Path, weights: Mapping[str, Tensor], known: Known) -> GeneratorConfig:
    shared = weights["blocks.0.norm_0.mlp_shared.weight"]
    classes = shared.shape[1]
    told: dict[str, Any] = {"label_nc": classes, "spade_kernel": shared.shape[2]}
    told |= {"preset": "monai", "dont_care": False, "instance_edges": False, "nf": 2, "upsampling": "normal",
             "norm": "instance", "style": False, "architecture": "spadenet"}  # fmt: skip
    wrong = {name: value for name, value in known.fields.items() if name in told and value != told[name]}
    if wrong:
        raise ConvertError(
            f"[convert] expected {', '.join(f'{name} {told[name]}' for name in wrong)}, as '{path}' says, but got "
            f"{', '.join(map(str, wrong.values()))}; leave it out"
        )
    values = {"height": 256, "width": 256} | dict(known.fields) | told
    return GeneratorConfig.from_dict(values)
