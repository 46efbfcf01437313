"""SPADENet, the SPADE generator of MONAI (medical images), in two dimensions, without its variational encoder.

It differs from the paper's generator in each part: blocks of any widths, x2 steps behind the blocks, a start map with
norm and activation of its own, hidden maps of any width behind a leaky ReLU, an instance norm behind gamma and beta,
and an image without tanh.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.constants import EPSILON, SLOPE
from spade_core.config import GeneratorConfig
from spade_core.models.form import AnyGenerator, Form, before_tanh
from spade_core.models.generator import doubled
from spade_core.models.shapes import Shapes


@dataclass(frozen=True)
class Widths:
    """The sizes of a SPADENet that no configuration tells, but its weights do.

    Attributes:
        blocks: channels in of each block, and channels out of the last, which is 1 (grey) or 3.
        hidden: channels between the two convs of a SPADE norm.
    """

    blocks: tuple[int, ...]
    hidden: int

    @staticmethod
    def of(shapes: Shapes) -> Widths:
        """Read the widths off the shapes of a SPADENet's tensors; the check of all keys names a missing key."""
        count = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
        read = [_size(shapes, f"blocks.{block}.conv_0.weight", 1) for block in range(count)]
        last = _size(shapes, f"blocks.{count - 1}.conv_1.weight", 0)
        return Widths((*read, last), _size(shapes, "blocks.0.norm_0.mlp_shared.weight", 0))


def _size(shapes: Shapes, key: str, axis: int) -> int:
    shape = shapes.get(key, ())
    return shape[axis] if len(shape) > axis else 1


class Norm(nn.Module):
    """SPADE as MONAI has it: instance norms of x, of gamma and of beta."""

    def __init__(self, channels: int, hidden: int, config: GeneratorConfig) -> None:
        super().__init__()
        kernel, padding = config.spade_kernel, config.spade_kernel // 2
        self.param_free_norm = nn.InstanceNorm2d(channels, eps=EPSILON)
        self.mlp_shared = nn.Conv2d(config.semantic_nc, hidden, kernel, padding=padding)
        self.mlp_gamma = nn.Sequential(
            nn.Conv2d(hidden, channels, kernel, padding=padding), nn.InstanceNorm2d(channels, eps=EPSILON)
        )
        self.mlp_beta = nn.Sequential(
            nn.Conv2d(hidden, channels, kernel, padding=padding), nn.InstanceNorm2d(channels, eps=EPSILON)
        )

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        """x [N, C, h, w] and the one-hot segmap of any size [N, semantic_nc, H, W] -> [N, C, h, w]."""
        actv = F.leaky_relu(self.mlp_shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest")))
        out: Tensor = self.param_free_norm(x) * (1 + self.mlp_gamma(actv)) + self.mlp_beta(actv)
        return out


class Block(nn.Module):
    """A residual block with a learned shortcut where the width changes."""

    def __init__(self, fin: int, fout: int, hidden: int, config: GeneratorConfig) -> None:
        super().__init__()
        fmid = min(fin, fout)
        self.conv_0 = nn.Conv2d(fin, fmid, 3, padding=1)
        self.conv_1 = nn.Conv2d(fmid, fout, 3, padding=1)
        self.norm_0, self.norm_1 = Norm(fin, hidden, config), Norm(fmid, hidden, config)
        self.conv_s = nn.Conv2d(fin, fout, 1) if fin != fout else None
        self.norm_s = Norm(fin, hidden, config) if fin != fout else None

    def forward(self, x: Tensor, segmap: Tensor) -> Tensor:
        """x [N, fin, h, w] -> [N, fout, h, w]."""
        shortcut = x if self.conv_s is None or self.norm_s is None else self.conv_s(self.norm_s(x, segmap))
        dx = self.conv_0(F.leaky_relu(self.norm_0(x, segmap), SLOPE))
        out: Tensor = shortcut + self.conv_1(F.leaky_relu(self.norm_1(dx, segmap), SLOPE))
        return out


class SpadeNet(AnyGenerator):
    """The network; `spade_core.drop_in` gives its norms their codebooks.

    Args:
        widths: None for four blocks from 8 nf down to nf, and a colour image.
    """

    image_range: Tensor

    def __init__(self, config: GeneratorConfig, widths: Widths | None = None) -> None:
        super().__init__()
        nf = config.nf
        widths = widths or Widths((8 * nf, 4 * nf, 2 * nf, nf, 3), 128)
        self.config, kernel = config, config.spade_kernel
        first, last = widths.blocks[0], widths.blocks[-1]
        self.fc = nn.Conv2d(config.semantic_nc, first, kernel, padding=kernel // 2)
        self.start_slope = nn.Parameter(torch.full((1,), 0.25))
        pairs = itertools.pairwise(widths.blocks)
        self.blocks = nn.ModuleList(Block(fin, fout, widths.hidden, config) for fin, fout in pairs)
        self.conv_img = nn.Conv2d(last, last, kernel, padding=kernel // 2)
        self.register_buffer("image_range", torch.tensor([-1.0, 1.0]))

    def draw(self, form: Form, style: Tensor | None) -> Tensor:  # noqa: ARG002 - there is none
        """The label maps in `form` -> the image before tanh [N, 3, H, W]. Raises ValueError for a size it lacks."""
        segmap, step = form.segmap(1), 2 ** len(self.blocks)
        height, width = segmap.shape[2:]
        if height % step or width % step or height * width <= step * step:
            raise ValueError(
                f"[spadenet] expected label maps of more than {step}x{step}, with a height and width that are "
                f"multiples of {step}, but got {height}x{width}; resize them"
            )
        x: Tensor = F.instance_norm(self.fc(form.segmap(step)), eps=EPSILON)
        x = F.prelu(x, self.start_slope)
        for block in self.blocks:
            x = doubled(block(x, segmap))
        image: Tensor = F.leaky_relu(self.conv_img(x), SLOPE)
        return before_tanh(image, self.image_range)
