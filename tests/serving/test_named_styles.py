"""Styles by name, the seeds of a batch, and sheets of several styles: by the command and by the gateway's orders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from serving.cli.main import main
from serving.gateway.orders import order
from serving.gateway.problems import Problem
from serving.protocol import ModelInfo
from serving.triton.model_config import ModelOptions, spade_image_config
from serving.triton.protocol import read_parameters
from spade_core.config import preset
from spade_core.files.checkpoints import load, save
from spade_core.maps.drawn import demo_map
from spade_core.models.seeded import seeded_encoder, seeded_generator
from spade_core.models.style import STYLES, read_styles, style_from_seed, styles_text

CONFIG = replace(preset("demo"), nf=2, height=64, width=64)
NAMED = {"noon": style_from_seed(40), "winter": style_from_seed(41)}
INFO = ModelInfo("demo", 16, False, 64, 64, False, True, 8, 1 << 20, styles=styles_text(NAMED))


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    (tmp_path / "maps").mkdir()
    for seed in (0, 1):
        Image.fromarray(demo_map(0, CONFIG)[0]).save(tmp_path / "maps" / f"{seed}.png")
    return tmp_path / "maps"


def saved(path: Path, metadata: dict[str, str]) -> Path:
    save(path, seeded_generator(CONFIG), seeded_encoder(2), metadata)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(tmp_path / "w.safetensors", {STYLES: styles_text(NAMED)})


def spade(command: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [command, *map(str, arguments)], env={"COLUMNS": "200"})


def drawn(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_names_give_back_their_styles_and_a_checkpoint_keeps_them(weights: Path) -> None:
    found = read_styles(load(weights).metadata[STYLES])
    assert list(found) == list(NAMED)
    assert all(np.array_equal(found[name], one) for name, one in NAMED.items())
    assert read_styles(None) == {}
    for bad in ("[]", "x", '{"noon": "AAAA"}', json.dumps({"noon": 7})):
        with pytest.raises(ValueError, match=r"\[style\] expected"):
            read_styles(bad)
    assert "noon, winter" in spade("info", weights).output


def test_all_names_and_seeds_are_drawn_side_by_side(tmp_path: Path, weights: Path, maps: Path) -> None:
    common = (maps, "--weights", weights, "--out")
    assert spade("synthesize", *common, tmp_path / "all", "--styles", "all").exit_code == 0
    assert spade("synthesize", *common, tmp_path / "seeds", "--seeds", "40:43").exit_code == 0
    sheet = drawn(tmp_path / "seeds/sheet.png")
    assert sheet.shape == (128, 192, 3)
    for x, seed in enumerate((40, 41, 42)):
        one = drawn(tmp_path / f"seeds/1-seed{seed}.png")
        assert np.array_equal(sheet[64:, 64 * x : 64 * x + 64], one)
    for name, seed in {"noon": 40, "winter": 41}.items():
        assert np.array_equal(drawn(tmp_path / f"all/0-{name}.png"), drawn(tmp_path / f"seeds/0-seed{seed}.png"))
    assert not np.array_equal(drawn(tmp_path / "all/0-noon.png"), drawn(tmp_path / "all/0-winter.png"))
    assert spade("synthesize", *common, tmp_path / "one", "--style-name", "winter").exit_code == 0
    assert np.array_equal(drawn(tmp_path / "one/0.png"), drawn(tmp_path / "all/0-winter.png"))
    assert np.array_equal(drawn(tmp_path / "one/0.png"), drawn(tmp_path / "one/1.png"))


def test_without_a_choice_the_first_picture_is_noon_and_the_others_differ(
    tmp_path: Path, weights: Path, maps: Path
) -> None:
    plain = saved(tmp_path / "plain.safetensors", {})
    seeds = {"out": (weights, None), "plain": (plain, None), "s1": (plain, "1"), "s0": (plain, "0"), "n": (plain, "40")}
    for name, (file, seed) in seeds.items():
        chosen = () if seed is None else ("--seed", seed)
        assert spade("synthesize", maps, "--weights", file, "--out", tmp_path / name, *chosen).exit_code == 0
    assert np.array_equal(drawn(tmp_path / "out/0.png"), drawn(tmp_path / "n/0.png")), "noon has the style of seed 40"
    assert np.array_equal(drawn(tmp_path / "plain/0.png"), drawn(tmp_path / "s0/0.png"))
    for name in ("out", "plain"):
        assert np.array_equal(drawn(tmp_path / name / "1.png"), drawn(tmp_path / "s1/1.png"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--style-name", "spring"), "--style-name: expected a name out of: noon, winter, but got 'spring'"),
        (("--styles", "noon,x"), "--styles: expected a name out of: noon, winter, but got 'x'"),
        (("--seeds", "3:3"), "expected FIRST:END with 1..64 seeds, such as 0:8, but got '3:3'"),
        (("--seeds", "0:2", "--seed", "1"), "--seed, --seeds: expected one of them"),
        (("--style-name", "noon", "--styles", "all"), "--style-name, --styles: expected one of them"),
    ],
)
def test_wrong_choices_are_named(
    tmp_path: Path, weights: Path, maps: Path, options: tuple[str, ...], text: str
) -> None:
    result = spade("synthesize", maps, "--weights", weights, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_model_without_names_or_styles_says_so(tmp_path: Path, maps: Path) -> None:
    plain = saved(tmp_path / "plain.safetensors", {})
    result = spade("synthesize", maps, "--weights", plain, "--out", tmp_path / "out", "--styles", "all")
    assert "the weights hold no named styles; give --seeds 0:8" in result.output
    save(tmp_path / "none.safetensors", seeded_generator(replace(CONFIG, style=False)))
    common = ("synthesize", maps, "--weights", tmp_path / "none.safetensors", "--out", tmp_path / "out")
    assert "the model has no style input" in spade(*common, "--seeds", "0:2").output
    assert spade(*common).exit_code == 0


# ---- The gateway ----


def ordered(info: ModelInfo = INFO, photo: bytes | None = None, **texts: str) -> tuple[object, object]:
    found = order(b"png", None, photo, info, 64, "png", texts)
    return found.styles, found.seeds


def test_an_order_takes_a_style_by_name_and_noon_by_itself() -> None:
    for texts, wanted in (({"style_name": "winter"}, "winter"), ({}, "noon")):
        styles, seeds = ordered(**texts)
        assert np.array_equal(np.asarray(styles), NAMED[wanted][None])
        assert seeds is None
    assert np.asarray(ordered(style_name="noon", count="3")[0]).shape == (3, 256)
    assert ordered(count="3") == (None, (0, 1, 2)), "the seeds of several images differ"
    assert ordered(seed="7") == (None, (7,))
    assert ordered(replace(INFO, styles="")) == (None, (0,)), "weights without names draw seed 0, as before"
    assert ordered(photo=b"photo") == (None, None)


def test_wrong_names_and_contradictions_are_problems() -> None:
    with pytest.raises(Problem, match="expected style_name out of noon, winter but got 'spring'"):
        ordered(style_name="spring")
    with pytest.raises(Problem, match="expected style_name out of none but got 'noon'"):
        ordered(replace(INFO, styles=""), style_name="noon")
    with pytest.raises(Problem, match="expected one of style, style_name and seed"):
        ordered(style_name="noon", seed="1")
    with pytest.raises(Problem, match="expected one of style, style_name and seed"):
        ordered(style_name="noon", style=json.dumps([0.0] * 256))
    with pytest.raises(Problem, match="expected one of style_image"):
        ordered(photo=b"photo", style_name="noon")


def test_the_names_travel_from_the_weights_to_the_servers_info() -> None:
    model = spade_image_config(ModelOptions(), CONFIG, {STYLES: INFO.styles})
    options = read_parameters(
        json.dumps({"parameters": {k: {"string_value": v.string_value} for k, v in model.parameters.items()}})
    )
    assert options["styles"] == INFO.styles
    back = ModelInfo.from_json(INFO.rows(1)[0].tobytes())
    assert back == INFO
    assert {name: one.tolist() for name, one in back.named_styles().items()} == {
        name: one.tolist() for name, one in NAMED.items()
    }
    older = {key: value for key, value in json.loads(INFO.rows(1)[0].tobytes()).items() if key != "styles"}
    assert ModelInfo.from_json(json.dumps(older).encode()).named_styles() == {}
