"""Offline runs without a cluster: sources, names by content, equal maps together, what is resumed, what fails."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from offline_runs import drawn, make_maps, setting_of
from PIL import Image
from served import blocks, png

from serving.cli.jobs import find_jobs, synthesize_local
from serving.engines.contract import Engine
from serving.offline.drawings import Recipe, batches
from serving.offline.painter import Painter, RecipeError, Setting, draw_here
from serving.offline.run import Run
from serving.offline.sources import Item, SourceError, find_items
from spade_core.models.style import style_from_seed


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(tmp_path_factory.mktemp("offline"))


@pytest.fixture(scope="module")
def engine(setting: Setting) -> Engine:
    return setting.start()[0]


@pytest.fixture
def recipe(setting: Setting) -> Recipe:
    return setting.start()[1]


def finished(items: list[Item], setting: Setting, recipe: Recipe, out: Path, seeds: range = range(1)) -> Run:
    """A run in this process, into a folder of its own."""
    out.mkdir(exist_ok=True)
    run = Run(items, seeds, recipe, out)
    draw_here(batches(run.missing, 4), replace(setting, out=out), recipe, lambda _batch, failed, _who: run.note(failed))
    run.finish()
    return run


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_images_are_those_of_spade_synthesize(tmp_path: Path, setting: Setting, recipe: Recipe, engine: Engine) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    Image.fromarray(blocks(3, size=160, classes=8)[0][:, :100]).save(maps / "odd.png")  # resized by NEAREST
    finished(find_items([maps], None, tmp_path / "out"), setting, recipe, tmp_path / "out", range(7, 8))
    jobs = find_jobs([maps], None, tmp_path / "plain", "png")
    synthesize_local(
        engine, jobs, style=style_from_seed(7), colours=None, batch=1, image_format="png", done=lambda _job, _why: None
    )
    (entry,) = lines(tmp_path / "out" / "manifest.jsonl")
    assert (entry["key"], entry["seed"]) == ("odd.png", 7)
    assert (tmp_path / "out" / str(entry["file"])).read_bytes() == (tmp_path / "plain" / "odd.png").read_bytes()


def as_parquet(folder: Path, files: dict[str, bytes]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"key": list(files), "label_map": list(files.values()), "seed": [5] * len(files)})
    parquet.write_table(table, folder / "maps.parquet", row_group_size=2)
    return folder / "maps.parquet"


def as_shard(folder: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "maps.tar", "w") as shard:
        for key, data in files.items():
            for name, content in ((f"{key}.label.png", data), (f"{key}.seed", b"5")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return folder / "maps.tar"


@pytest.mark.parametrize("pack", [as_parquet, as_shard])
def test_shards_give_the_images_of_a_folder(
    tmp_path: Path, setting: Setting, recipe: Recipe, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    files = {f"map{seed}": png(blocks(seed, size=64, classes=8)[0]) for seed in range(3)}
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
    shard = pack(tmp_path, files)
    finished(find_items([folder], None, tmp_path / "a"), setting, recipe, tmp_path / "a", range(5, 6))
    finished(find_items([shard], None, tmp_path / "b"), setting, recipe, tmp_path / "b")  # the shard names the seeds
    images = [{name: data for name, data in drawn(tmp_path / one).items() if name.endswith(".png")} for one in "ab"]
    assert images[0] == images[1]
    assert len(images[0]) == 3
    assert [one["key"] for one in lines(tmp_path / "b" / "manifest.jsonl")] == [f"{shard.name}/{key}" for key in files]


def test_equal_maps_are_one_image_and_their_styles_lie_together(tmp_path: Path, recipe: Recipe) -> None:
    make_maps(tmp_path / "maps", 3)
    (tmp_path / "maps" / "copy.png").write_bytes((tmp_path / "maps" / "map1.png").read_bytes())
    run = Run(find_items([tmp_path / "maps"], None, tmp_path), range(4), recipe, tmp_path)
    assert (len(run.entries), len(run.missing)) == (16, 12)
    places = [drawing.labels.path for drawing in run.missing]
    assert places == [path for path in dict.fromkeys(places) for _ in range(4)]


def test_a_run_again_draws_what_is_missing_and_sweeps_drafts(tmp_path: Path, setting: Setting, recipe: Recipe) -> None:
    make_maps(tmp_path / "maps", 3)
    items, out = find_items([tmp_path / "maps"], None, tmp_path / "out"), tmp_path / "out"
    finished(items, setting, recipe, out)
    whole = drawn(out)
    gone = next(path for path in out.iterdir() if path.suffix == ".png")
    draft = out / f".{gone.name}.0123abcd.tmp"
    gone.rename(draft)  # as a killed worker leaves it
    again = Run(items, range(1), recipe, out)
    assert [drawing.file for drawing in again.missing] == [gone.name]
    finished(items, setting, recipe, out)
    assert drawn(out) == whole


def test_a_bad_map_fails_alone_and_is_listed(tmp_path: Path, setting: Setting, recipe: Recipe) -> None:
    make_maps(tmp_path / "maps", 2)
    (tmp_path / "maps" / "bad.png").write_bytes(b"nonsense")
    items = find_items([tmp_path / "maps"], None, tmp_path / "out")
    finished(items, setting, recipe, tmp_path / "out")
    (failed,) = lines(tmp_path / "out" / "failed.jsonl")
    assert failed["key"] == "bad.png"
    assert "expected" in str(failed["reason"])
    assert len(lines(tmp_path / "out" / "manifest.jsonl")) == 2
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "maps" / "bad.png")
    finished(items, setting, recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "failed.jsonl").exists()


def test_a_name_depends_on_all_that_the_bits_depend_on(tmp_path: Path, recipe: Recipe) -> None:
    make_maps(tmp_path, 1)
    items = find_items([tmp_path], None, tmp_path / "out")
    changes = [
        {"weights": "x"},
        {"precision": "bf16"},
        {"isa": "x"},
        {"engine": "x"},
        {"format": "webp"},
        {"colours": "x"},
    ]
    recipes = [recipe, *(replace(recipe, **change) for change in changes)]
    names = {Run(items, seeds, one, tmp_path).missing[0].file for one in recipes for seeds in (range(1), range(1, 2))}
    assert len(names) == 2 * len(recipes)


def test_a_node_that_would_draw_other_bits_is_refused(setting: Setting, recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"expected to draw with Recipe.*leave it out of the run"):
        Painter(setting, replace(recipe, isa="other"))


def test_a_path_without_maps_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected label maps"):
        find_items([tmp_path], None, tmp_path / "out")
