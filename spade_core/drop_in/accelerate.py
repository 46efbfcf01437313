"""One line makes the SPADE layers of a network faster, with the same results: `accelerate(model)`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn

from spade_core.drop_in.by_region import RegionForward, find_region_layers
from spade_core.drop_in.forward import CodebookForward
from spade_core.drop_in.in_place import ForwardInPlace
from spade_core.drop_in.layers import find_layers
from spade_core.drop_in.maps import Maps

_log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


def accelerate(model: Model) -> Model:
    """Give every SPADE layer of a network a forward by codebook. Returns the network, changed in place.

    Parameters, buffers, hooks and `state_dict` stay as they are; results and gradients are the same to rounding. Layers
    are recognised by what they compute, in two and three dimensions. A label map with too many distinct channel vectors
    (soft labels, noise at every pixel, features) goes through the layer's own convs, and the log says why once. Layers
    with tables of classes or styles of regions are tried at their first call, and left as they are if they compute
    something else.

    Raises ValueError for a network without a SPADE layer. A second call changes nothing.
    """
    done = _forwards(model)
    maps = done[0].maps if done else Maps()
    for forward in done:
        forward.maps = maps  # parts that were accelerated one by one share their maps from now on
    known = {forward.module for forward in done}
    for name, layer in find_layers(model, known).items():
        module = model.get_submodule(name)
        CodebookForward(module, layer, maps).put_in()
        known.add(module)
    for module in find_region_layers(model, known).values():
        RegionForward(module, maps).put_in()
    forwards = _forwards(model)
    if not forwards:
        raise ValueError(
            f"[accelerate] expected a network with SPADE layers but found none in {type(model).__name__}; a layer is a "
            "norm of x, one conv on the label map and two convs behind it (gamma and beta)"
        )
    count = sum(isinstance(forward, CodebookForward) for forward in forwards)
    _log.info("accelerated %d SPADE layers, and %d with tables or region styles", count, len(forwards) - count)
    return model


def restore(model: Model) -> Model:
    """Undo `accelerate`. Returns the network, changed in place; a network that was not accelerated stays as it is."""
    for forward in _forwards(model):
        forward.take_out()
    return model


@contextlib.contextmanager
def label_map(model: nn.Module, segmap: Tensor) -> Iterator[None]:
    """Keep the plans and codebooks of a label map over the calls of the block: diffusion steps, styles, video.

    Args:
        segmap: [N, L, *spatial], as the network is given it. Other segmaps may be used too; nothing of them is kept.

    Codebooks are kept while no gradient is wanted, and are made anew when the layer's parameters change. Blocks may be
    nested, for several maps. Raises ValueError for a network that was not accelerated, and for a segmap without
    symbols.
    """
    forwards = _forwards(model)
    if not forwards:
        raise ValueError(
            "[label_map] expected an accelerated network but got a plain one; call accelerate(model) first"
        )
    with contextlib.ExitStack() as stack:
        for maps in {forward.maps for forward in forwards}:  # one, unless parts were accelerated one by one
            pin = maps.pin(segmap)
            stack.callback(maps.unpin, pin)
            if isinstance(pin.found, str):
                raise ValueError(f"[label_map] expected a label map of few distinct channel vectors but {pin.found}")
        yield


def _forwards(model: nn.Module) -> list[ForwardInPlace]:
    found = (module.__dict__.get("forward") for module in model.modules())
    return [forward for forward in found if isinstance(forward, ForwardInPlace)]
