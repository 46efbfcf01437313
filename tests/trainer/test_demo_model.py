"""The model that ships is small, was trained on the scenes, and draws the classes of its label maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spade_core.codebook.entries import level_tensors
from spade_core.codebook.fold import fold_generator
from spade_core.codebook.plans import plan_levels
from spade_core.codebook.synthesize import synthesize_codebook
from spade_core.config import DEMO_WEIGHTS
from spade_core.files.checkpoints import load, save
from spade_core.maps.drawn import demo_map
from spade_core.maps.label_maps import prepare
from spade_core.models.seeded import seeded_encoder, seeded_generator
from spade_core.models.style import STYLES, read_styles
from trainer.evaluation.evaluate import Judges, Sampling, evaluate, scene_examples
from trainer.evaluation.judges import scenes_segmentation
from trainer.output.scene_styles import FIRST_SCENE, add_styles
from trainer.scenes.scene import scene
from trainer.scenes.styles import STYLES as SCENE_STYLES

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


def test_its_named_styles_are_the_scenes_styles_and_night_is_darker_than_noon() -> None:
    checkpoint = load(DEMO_WEIGHTS)
    styles = read_styles(checkpoint.metadata[STYLES])
    assert list(styles) == list(SCENE_STYLES)
    folded = fold_generator(checkpoint.generator)
    symbols = prepare(demo_map(0, checkpoint.config)[0][None], None, checkpoint.config)
    levels = level_tensors(plan_levels(symbols, checkpoint.config), torch.device("cpu"))
    on_device, light = torch.from_numpy(symbols.astype(np.int32)), {}
    for name in ("noon", "night"):
        style = torch.from_numpy(styles[name])[None]
        with torch.inference_mode():
            light[name] = float(
                synthesize_codebook(checkpoint.generator, folded, on_device, levels, style).tanh().mean()
            )
    assert light["noon"] > light["night"] + 0.2


def test_styles_are_added_to_a_checkpoint_whose_tensors_stay(tmp_path: Path) -> None:
    config = replace(load(DEMO_WEIGHTS).config, nf=2, height=64, width=64)
    path, encoder = tmp_path / "w.safetensors", seeded_encoder(2)
    save(path, seeded_generator(config), encoder, {"source": "a test"}, dtype=torch.bfloat16)
    before = load_file(path)
    assert add_styles(path, count=1) == list(SCENE_STYLES)
    after, metadata = load_file(path), load(path).metadata
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert metadata["source"] == "a test"
    image = scene(FIRST_SCENE, height=64, width=64, style="winter").image.transpose(2, 0, 1)
    with torch.no_grad():
        mean, _ = load(path).encoder(torch.from_numpy(image.copy())[None].float() / 127.5 - 1)  # type: ignore[misc]
    assert np.array_equal(read_styles(metadata[STYLES])["winter"], mean[0].numpy())
    save(path, seeded_generator(config), encoder, {"look": "lit"})
    add_styles(path, count=1)
    assert not np.array_equal(read_styles(load(path).metadata[STYLES])["winter"], mean[0].numpy()), "of lit scenes"
    save(path, seeded_generator(config))
    with pytest.raises(ValueError, match="expected weights with a style encoder"):
        add_styles(path)
