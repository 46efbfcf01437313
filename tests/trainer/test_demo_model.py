"""The model that ships is small, was trained on the scenes, and draws the classes of its label maps."""

from __future__ import annotations

import torch

from spade_core.config import DEMO_WEIGHTS
from spade_core.files.checkpoints import load
from trainer.evaluation.evaluate import Judges, Sampling, evaluate, scene_examples
from trainer.evaluation.judges import scenes_segmentation

LARGEST = 12_000_000  # bytes
SCENES = 8
VISIBLE = 0.04  # mean pixel distance of two styles of one map, on 0..1: ten grey levels


def test_the_file_is_small_and_says_where_it_is_from() -> None:
    assert DEMO_WEIGHTS.stat().st_size <= LARGEST
    metadata = load(DEMO_WEIGHTS).metadata
    assert metadata["data"] == "scenes"
    assert int(metadata["steps"]) > 0


def test_its_classes_are_found_again_and_its_styles_differ() -> None:
    """Its mIoU is at least half of the real scenes' mIoU; random weights reach a tenth."""
    checkpoint = load(DEMO_WEIGHTS)
    assert checkpoint.encoder is not None
    with torch.inference_mode():
        scores = evaluate(
            checkpoint.generator,
            scene_examples(checkpoint.config, SCENES),
            Judges(scenes_segmentation()),
            Sampling(batch=4, styles=3, diversity_maps=2),
        )
    assert scores.generated is not None
    assert scores.real is not None
    assert scores.diversity is not None
    assert scores.generated.miou >= 0.5 * scores.real.miou
    assert scores.diversity.value >= VISIBLE
