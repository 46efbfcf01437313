"""Symbols: one number a pixel, which holds its label and, where the generator reads them, its instance edge.

This is the one operation that runs without the compiled module too, so that label maps can be checked anywhere.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np

from kernels.constants import DONT_CARE
from kernels.layouts import Edges, Instances, Labels, Symbols

_log = logging.getLogger(__name__)

# ---- The specification in NumPy ----


def symbols_numpy(
    labels: Labels, instances: Instances | None, classes: int, dont_care_id: int | None
) -> tuple[Symbols, bool]:
    """Compute what `symbols` computes, bit for bit. Same arguments and result."""
    ids = labels if dont_care_id is None else np.where(labels == DONT_CARE, np.uint8(dont_care_id), labels)
    numbers = ids.astype(np.uint16)
    if instances is not None:
        numbers = 2 * numbers + instance_edges(instances)
    return numbers, int(ids.max()) < classes


def instance_edges(instances: Instances) -> Edges:
    """Instance ids int32 [N, H, W] -> bool [N, H, W]: the id differs from the left, right, upper or lower neighbour's.

    Both sides of a boundary are marked. The border of the image is no boundary.
    """
    edges = np.zeros(instances.shape, np.bool_)
    across = instances[:, :, 1:] != instances[:, :, :-1]
    down = instances[:, 1:, :] != instances[:, :-1, :]
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:, :] |= down
    edges[:, :-1, :] |= down
    return edges


# ---- The native kernel ----


def symbols(
    labels: Labels, instances: Instances | None, classes: int, dont_care_id: int | None
) -> tuple[Symbols, bool]:
    """Make the symbols of a batch of label maps and check the labels in the same pass.

    Args:
        labels: uint8 [N, H, W].
        instances: int32 [N, H, W], or None: the generator reads no instance edges.
        classes: ids are 0 .. classes - 1.
        dont_care_id: the id that label 255 becomes, or None: label 255 is an id like any other.

    Returns symbols uint16 [N, H, W], `id` or, with instances, `2 * id + edge`, and whether every id is below `classes`.

    Without the compiled module, `symbols_numpy` does the work, and a warning in the log says so once.
    """
    native = _native_symbols()
    if native is None:
        return symbols_numpy(labels, instances, classes, dont_care_id)
    out = np.empty(labels.shape, np.uint16)
    known = native(
        np.ascontiguousarray(labels), None if instances is None else np.ascontiguousarray(instances), classes,
        -1 if dont_care_id is None else dont_care_id, out,
    )  # fmt: skip
    return out, known


@functools.cache
def _native_symbols() -> Callable[..., bool] | None:
    try:
        from kernels.native import native
    except ImportError as error:
        _log.warning("%s; symbols are made in NumPy until then, which is slower", error)
        return None
    return native.symbols
