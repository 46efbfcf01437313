"""Any network that draws an image of a one-hot label map, for `spade serve --model`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from spade_core.config import ConfigError, GeneratorConfig
from spade_core.models.form import AnyGenerator, Form, before_tanh


class OneHotModel(AnyGenerator):
    """A network of any library, with the facts that a server needs.

    Args:
        network: called with the one-hot map float32 [N, classes, H, W] and, with `style`, a style [N, 256]. Returns
            the image [N, 1 or 3, H, W], or a tuple or list that begins with the image.
        classes: ids 0 .. classes - 1 of a label map, at most 256.
        height, width: of the label maps and images, pixels.
        style: whether the network takes a style vector.
        black, white: the image's values that become 0 and 255.
        class_names: a name for each class, or none.

    Raises ConfigError for facts that no configuration allows.
    """

    image_range: Tensor

    def __init__(
        self, network: nn.Module, *, classes: int, height: int, width: int, style: bool = False, black: float = -1.0,
        white: float = 1.0, class_names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        if black == white:
            raise ConfigError(f"[module] expected values of black and white that differ but got {black} twice")
        self.config = GeneratorConfig(
            "module", classes, False, False, height, width, 2, "normal", "instance", 3, style, "module",
            tuple(class_names),
        )  # fmt: skip
        self.network = network
        self.register_buffer("image_range", torch.tensor([black, white], dtype=torch.float32), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's parameters; float32 without any."""
        return next((one.dtype for one in self.network.parameters() if one.is_floating_point()), torch.float32)

    def sha256(self) -> str:
        """A hash of all values of the network, which no file holds."""
        digest = hashlib.sha256()
        for key, tensor in self.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def draw(self, form: Form, style: Tensor | None) -> Tensor:
        """The label maps in `form`, style [N, 256] or None -> the image before tanh [N, 3, H, W].

        Raises ValueError where the network returns no image of the label map's size.
        """
        segmap = form.segmap(1)
        drawn = self.network(segmap) if style is None else self.network(segmap, style)
        image = drawn[0] if isinstance(drawn, (tuple, list)) and drawn else drawn
        images, (height, width) = len(segmap), segmap.shape[2:]
        if not isinstance(image, Tensor) or tuple(image.shape) not in [(images, c, height, width) for c in (1, 3)]:
            got = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"[module] expected an image {[images, '1 or 3', height, width]} of {type(self.network).__name__} but "
                f"got {got}; wrap the network so that it returns the image, and give OneHotModel its size"
            )
        return before_tanh(image, self.image_range)


def refuse_config(config: GeneratorConfig) -> NoReturn:
    """Raise ConfigError: no configuration tells the network of `spade serve --model`."""
    raise ConfigError(f"[registry] expected a network to build but got {config.architecture!r}; give it by --model")
