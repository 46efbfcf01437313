"""What a stroke makes a session redo, counted."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.editing.strokes import Edit
from serving.engines.contract import check_inputs
from serving.engines.cpu.pack import walk
from serving.engines.reach import changed_patches, changed_start, changed_symbols, conv_macs, reached_maps, whole_maps
from spade_core.config import GeneratorConfig, level_sizes


@dataclass(frozen=True)
class _Block:
    level: int
    shift: int


def conv_share(edit: Edit, config: GeneratorConfig) -> float:
    """The share, 0..1, of the convs' multiply-adds that a session redoes for an edit of a model with batch norm."""
    blocks = [_Block(level, shift) for _, level, shift in walk(config)]
    before, after = (check_inputs(*maps, None, config).symbols[0] for maps in (edit.before, edit.after))
    sizes = level_sizes(before.shape[0], before.shape[1], config.upsamplings)
    changed = changed_symbols(before, after, sizes)
    start = changed_start(changed[0], False, sizes[0], config)
    reached = reached_maps(start, changed_patches(changed, sizes, config), blocks, sizes)
    return conv_macs(reached, config) / conv_macs(whole_maps(blocks, sizes), config)
