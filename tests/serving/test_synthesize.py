"""`synthesize` on this machine: layouts are kept, a bad file fails alone, and no half image is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.cli.jobs import (
    Failure,
    Job,
    SynthesizeError,
    find_jobs,
    synthesize_local,
)
from serving.engines.reference import TorchEngine
from serving.requests.images import write_image
from spade_core.config import preset
from spade_core.maps.colours import ColourTable
from spade_core.maps.drawn import demo_map
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed

DEMO = replace(preset("demo"), nf=4)


def save_map(path: Path, seed: int = 0, size: tuple[int, int] = (256, 256)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(demo_map(seed, DEMO, height=size[0], width=size[1])[0]).save(path)
    return path


def run(jobs: list[Job], **options: object) -> tuple[list[Failure], list[Job]]:
    finished: list[Job] = []
    defaults: dict[str, object] = {
        "style": style_from_seed(0), "colours": None, "batch": 2, "image_format": "png",
        "done": lambda job, _failure: finished.append(job),
    }  # fmt: skip
    engine = options.pop("engine", None) or TorchEngine(seeded_generator(DEMO))
    failures = synthesize_local(engine, jobs, **(defaults | options))  # type: ignore[arg-type]
    return failures, finished


def test_a_folder_keeps_its_layout(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "deep/c.PNG", "notes.txt"):
        (tmp_path / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "maps" / name).touch()
    jobs = find_jobs([tmp_path / "maps"], tmp_path / "inst", tmp_path / "out", "jpeg")
    assert [job.out.relative_to(tmp_path / "out").as_posix() for job in jobs] == ["a.jpg", "b.jpg", "deep/c.jpg"]
    assert [job.instances for job in jobs] == [tmp_path / "inst" / n for n in ("a.png", "b.png", "deep/c.PNG")]


def test_images_of_an_earlier_run_are_no_label_maps(tmp_path: Path) -> None:
    save_map(tmp_path / "a.png")
    save_map(tmp_path / "out" / "a.png")
    assert [job.labels for job in find_jobs([tmp_path], None, tmp_path / "out", "png")] == [tmp_path / "a.png"]


def test_dot_files_are_no_label_maps_and_partners_are_found_in_any_case(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("maps/a.png", "maps/._a.png", "inst/a.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "maps/again").symlink_to(tmp_path / "maps")
    (job,) = find_jobs([tmp_path / "maps"], tmp_path / "inst", tmp_path / "out", "png")
    assert (job.labels, job.instances) == (tmp_path / "maps/a.png", tmp_path / "inst/a.PNG")
    assert "left out: 1 that link back to a folder around them, 1 with a name that begins with a dot" in caplog.text


@pytest.mark.parametrize("labels", [".", "a.png"])
def test_no_image_replaces_a_map(tmp_path: Path, labels: str) -> None:
    save_map(tmp_path / "a.png")
    with pytest.raises(SynthesizeError, match=r"the image .*a\.png would replace one; give another folder"):
        find_jobs([tmp_path / labels], None, tmp_path / "x/..", "png")


def test_two_maps_for_one_image_are_refused_before_any_work(tmp_path: Path) -> None:
    paths = [save_map(tmp_path / "x" / "a.png"), save_map(tmp_path / "y" / "a.png")]
    with pytest.raises(SynthesizeError, match=r"x/a.png and .*y/a.png would both become"):
        find_jobs(paths, None, tmp_path / "out", "png")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: [p / "absent.png"], "absent.png does not exist"),
        (lambda p: [p], "PNG label maps in .* but found none"),
        (lambda _p: [], "give --labels PATH"),
    ],
)
def test_paths_without_a_label_map_are_named(tmp_path: Path, make: object, text: str) -> None:
    with pytest.raises(SynthesizeError, match=text):
        find_jobs(make(tmp_path), None, tmp_path / "out", "png")  # type: ignore[operator]


def test_maps_of_any_size_become_images_of_the_models_size(tmp_path: Path) -> None:
    paths = [save_map(tmp_path / f"{i}.png", i, (100 + 60 * i, 300)) for i in range(3)]
    failures, finished = run(find_jobs(paths, None, tmp_path / "out", "png"))
    assert failures == []
    assert [job.labels for job in finished] == paths
    for job in finished:
        with Image.open(job.out) as image:
            assert (image.size, image.mode) == ((256, 256), "RGB")


def test_bad_files_fail_alone_and_are_listed(tmp_path: Path) -> None:
    good = save_map(tmp_path / "good.png")
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(good.read_bytes()[:200])
    out_of_range = tmp_path / "range.png"
    Image.fromarray(np.full((256, 256), 77, np.uint8)).save(out_of_range)
    jobs = find_jobs([truncated, good, out_of_range], None, tmp_path / "out", "png")
    failures, finished = run(jobs)
    assert {f.path for f in failures} == {truncated, out_of_range}
    assert any("77" in f.reason for f in failures)
    assert len(finished) == 3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_an_instance_map_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    config = replace(DEMO, instance_edges=True)
    for name, size in (
        ("map.png", (30, 40)),
        ("same.png", (30, 40)),
        ("inst/map.png", (60, 80)),
        ("inst/same.png", (30, 40)),
    ):
        save_map(tmp_path / name, size=size)
    jobs = find_jobs([tmp_path / "map.png", tmp_path / "same.png"], tmp_path / "inst", tmp_path / "out", "png")
    failures, finished = run(jobs, engine=TorchEngine(seeded_generator(config)))
    assert [f.path for f in failures] == [tmp_path / "map.png"]
    assert "inst/map.png' to have the size of its label map, 40x30, but got 80x60" in failures[0].reason
    assert len(finished) == 2


def test_rgb_maps_are_read_through_a_colour_table(tmp_path: Path) -> None:
    labels = demo_map(1, DEMO)[0]
    colours = np.stack([np.arange(16) * 10, np.arange(16), 255 - np.arange(16)], axis=1).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "ids.png")
    Image.fromarray(colours[labels]).save(tmp_path / "rgb.png")
    lines = ["id,r,g,b,name", *(f"{i},{r},{g},{b},class {i}" for i, (r, g, b) in enumerate(colours.tolist()))]
    (tmp_path / "colours.csv").write_text("\n".join(lines))
    table = ColourTable.load(tmp_path / "colours.csv")
    jobs = find_jobs([tmp_path / "ids.png", tmp_path / "rgb.png"], None, tmp_path / "out", "png")
    assert run(jobs, colours=table)[0] == []
    assert (tmp_path / "out/ids.png").read_bytes() == (tmp_path / "out/rgb.png").read_bytes()


def test_an_interrupted_write_leaves_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_path: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", b"data")
    assert not (tmp_path / "a.png").exists()
