"""Turns files of label maps into files of images, by an engine here or a server elsewhere. A bad file fails alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from serving.client import Client
from serving.engines.contract import Engine, Inputs
from serving.requests.images import FORMATS, encode_images, read_encoding, write_image
from serving.requests.map_files import read_inputs
from spade_core.config import GeneratorConfig
from spade_core.maps.colours import ColourTable
from spade_core.maps.label_maps import read_label_map
from spade_core.maps.walk import by_stem, find_files
from spade_core.models.style import style_from_seed
from spade_core.types import Style


class SynthesizeError(ValueError):
    """Paths name no label map, or clash. The message holds the paths."""


@dataclass(frozen=True)
class Job:
    """One image to make: the paths of its maps, and of the image.

    Attributes:
        style: float32 [256] of this image alone, or None.
        seed: of this image alone, in place of a style, or None.
    """

    labels: Path
    instances: Path | None
    out: Path
    style: Style | None = field(default=None, compare=False)
    seed: int | None = None


@dataclass(frozen=True)
class Failure:
    """A label map that gave no image, and the reason."""

    path: Path
    reason: str


def find_jobs(labels: Sequence[Path], instances: Path | None, out: Path, image_format: str) -> list[Job]:
    """Find the images to make. Each path is a PNG file, or a folder whose layout, at any depth, is kept in `out`.

    `instances` is a folder of the same layout and names or, for a single label map, a file. Raises SynthesizeError.
    """
    found: list[tuple[Path, Path]] = []  # (file, its name under a root)
    for path in labels:
        if path.is_dir():
            # An earlier run may have written its images into the same folder.
            inside = find_files(path, (".png",), exclude=out)
            if not inside:
                raise SynthesizeError(f"[synthesize] expected PNG label maps in {path} but found none")
            found += [(p, p.relative_to(path)) for p in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise SynthesizeError(f"[synthesize] expected a label map or a folder of them but {path} does not exist")
    if not found:
        raise SynthesizeError("[synthesize] expected at least one label map but got none; give --labels PATH")
    if instances is not None and instances.is_file() and len(found) > 1:
        raise SynthesizeError(
            f"[synthesize] expected --instances to be a folder, since there are {len(found)} label maps, "
            f"but {instances} is a file"
        )
    partners = {}
    if instances is not None and instances.is_dir():
        partners = by_stem(find_files(instances, (".png",)), instances)
    jobs = [
        Job(path, _instance_path(instances, name, partners), (out / name).with_suffix(FORMATS[image_format]))
        for path, name in found
    ]
    _check_outputs(jobs)
    return jobs


def _check_outputs(jobs: Sequence[Job]) -> None:
    """Check that no image replaces another image, or a map that is read. Raises SynthesizeError."""
    read = {path.resolve() for job in jobs for path in (job.labels, job.instances) if path is not None}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.out in taken:
            raise SynthesizeError(
                f"[synthesize] expected one label map per image but {taken[job.out]} and {job.labels} would both "
                f"become {job.out}; give them in separate runs"
            )
        if job.out.resolve() in read:
            raise SynthesizeError(
                f"[synthesize] expected --out to be a folder without the maps but the image {job.out} would replace "
                "one; give another folder"
            )
        taken[job.out] = job.labels


def _instance_path(instances: Path | None, name: Path, partners: Mapping[str, Path]) -> Path | None:
    if instances is None or instances.is_file():
        return instances
    exact = instances / name
    return exact if exact.is_file() else partners.get(name.with_suffix("").as_posix(), exact)


def synthesize_local(
    engine: Engine,
    jobs: Sequence[Job],
    *,
    style: Style | None,
    colours: ColourTable | None,
    batch: int,
    image_format: str,
    done: Callable[[Job, Failure | None], None],
) -> list[Failure]:
    """Run the jobs through an engine of this process, `batch` maps at a time, each resized to the model's size.

    `style` float32 [256] is used for the jobs without a style. `done` hears of each job as it ends. Returns the jobs
    that failed.
    """
    failures: list[Failure] = []
    encoding = read_encoding({"format": image_format})

    def finish(job: Job, reason: str | None) -> None:
        failure = None if reason is None else Failure(job.labels, reason)
        if failure is not None:
            failures.append(failure)
        done(job, failure)

    for part in _parts(jobs, batch):
        read: list[tuple[Job, Inputs]] = []
        for job in part:
            try:
                chosen = style if job.style is None else job.style
                if job.seed is not None:
                    chosen = style_from_seed(job.seed)
                read.append((job, _read(job, engine.config, colours, chosen)))  # a bad map joins no batch
            except (ValueError, OSError) as error:
                finish(job, str(error))
        if not read:
            continue
        images = engine.run(Inputs.join([inputs for _, inputs in read]))
        for (job, _), image in zip(read, encode_images(images, encoding), strict=True):
            try:
                write_image(job.out, image)
            except OSError as error:
                finish(job, str(error))
            else:
                finish(job, None)
    return failures


def _read(job: Job, config: GeneratorConfig, colours: ColourTable | None, style: Style | None) -> Inputs:
    row = None if style is None else style[None]
    return read_inputs(job.labels, job.instances, config, colours=colours, style=row, instances_name=str(job.instances))


def synthesize_remote(
    connect: Callable[[], Client],
    jobs: Sequence[Job],
    *,
    style: Style | None,
    seed: int | None,
    colours: ColourTable | None,
    in_flight: int,
    image_format: str,
    done: Callable[[Job, Failure | None], None],
) -> list[Failure]:
    """Send the jobs to a server, `in_flight` at once; the server forms batches. Each thread has its own connection.

    `style` float32 [256] and `seed` are used for the jobs that have neither. `done` hears of each job as it ends.
    Returns the jobs that failed.
    """
    local = threading.local()
    failures: list[Failure] = []

    def one(job: Job) -> None:
        if not hasattr(local, "client"):
            local.client = connect()
        labels = (
            job.labels.read_bytes()
            if colours is None
            else encode_images(read_label_map(job.labels, colours=colours)[None], read_encoding({}))[0]
        )
        instances = None if job.instances is None else [job.instances.read_bytes()]
        own = job.style is not None or job.seed is not None
        chosen, number = (job.style, job.seed) if own else (style, seed)
        styles = None if chosen is None else chosen[None]
        result = local.client.synthesize_image([labels], instances, styles, number, image_format)
        write_image(job.out, result.images[0])

    pool = ThreadPoolExecutor(in_flight)
    try:
        running = {pool.submit(one, job): job for job in jobs}
        for future in as_completed(running):
            job, error = running[future], future.exception()
            failure = None
            if isinstance(error, ValueError | OSError | RuntimeError):
                failure = Failure(job.labels, str(error))
                failures.append(failure)
            elif error is not None:
                raise error
            done(job, failure)
    finally:
        # After Ctrl-C, nobody waits for the answers to requests that are on their way.
        pool.shutdown(wait=False, cancel_futures=True)
    return failures


def _parts(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    for first in range(0, len(jobs), size):
        yield jobs[first : first + size]
