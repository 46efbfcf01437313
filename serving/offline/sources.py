"""Label maps to draw: PNG files of folders, rows of Parquet files, samples of WebDataset shards."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from spade_core.maps.walk import by_stem, find_files

LABELS, INSTANCES = ("label.png", "label_map.png", "png"), ("inst.png", "instance_map.png")  # WebDataset's extensions
SEED = "seed"
_SUFFIXES = (".png", ".parquet", ".tar")


class SourceError(ValueError):
    """A path holds no label maps. The message holds the path."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of a file lie, for any node that sees the file system.

    Attributes:
        path: a PNG file, a shard or a Parquet file.
        start: the first byte; of a Parquet file, the row.
        length: bytes; None for the rest of the file.
        column: of a Parquet file.
    """

    path: str
    start: int = 0
    length: int | None = None
    column: str | None = None

    def read(self) -> bytes:
        """The bytes. Raises OSError, and ValueError for a Parquet value that holds none."""
        if self.column is not None:
            return _bytes_of(_parquet_value(self.path, self.column, self.start), self)
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            return file.read() if self.length is None else file.read(self.length)


@dataclass(frozen=True)
class Item:
    """A label map, the instance map that goes with it, and the seed of its style where the shard names one."""

    key: str
    labels: Place
    instances: Place | None = None
    seed: int | None = None


def find_items(paths: Sequence[Path], instances: Path | None, out: Path) -> list[Item]:
    """Every label map of the paths, in the order of the paths and of the names within. Raises SourceError.

    `instances` is a folder of the same layout and names as the PNG files. A folder may hold shards too.
    """
    partners = {} if instances is None else by_stem(find_files(instances, (".png",)), instances)
    items: list[Item] = []
    for path in paths:
        if not path.exists():
            raise SourceError(f"[synthesize] expected label maps but {path} does not exist")
        files = find_files(path, _SUFFIXES, exclude=out) if path.is_dir() else [path]
        found = [item for file in files for item in _items_of(file, path, partners, instances)]
        if not found:
            raise SourceError(f"[synthesize] expected label maps (PNG, Parquet or WebDataset) in {path} but found none")
        items += found
    return items


def _items_of(file: Path, root: Path, partners: dict[str, Path], instances: Path | None) -> Iterator[Item]:
    name = file.relative_to(root).as_posix() if root != file else file.name
    match file.suffix.lower():
        case ".parquet":
            yield from _rows(file, name)
        case ".tar":
            yield from _samples(file, name)
        case _:
            partner = None
            if instances is not None:
                path = partners.get(Path(name).with_suffix("").as_posix(), instances / name)
                partner = Place(str(path.resolve()))
            yield Item(name, Place(str(file.resolve())), partner)


def _rows(file: Path, name: str) -> Iterator[Item]:
    """A row of a Parquet file: `label_map` (bytes, or a struct with `bytes`), `instance_map`, `seed` and `key`."""
    from pyarrow.parquet import ParquetFile

    path = str(file.resolve())
    with ParquetFile(path) as opened:
        columns = opened.schema_arrow.names
        if "label_map" not in columns:
            raise SourceError(f"[synthesize] expected a column label_map in {file} but got {', '.join(columns)}")
        plain = [column for column in ("key", SEED) if column in columns]
        table = opened.read(plain).to_pydict() if plain else {}
        rows = opened.metadata.num_rows
    partner = "instance_map" in columns
    for row in range(rows):
        key = table["key"][row] if "key" in table else row
        yield Item(
            f"{name}/{key}",
            Place(path, row, None, "label_map"),
            Place(path, row, None, "instance_map") if partner else None,
            table[SEED][row] if SEED in table else None,
        )


def _samples(file: Path, name: str) -> Iterator[Item]:
    """A sample of a WebDataset shard: the files of one name up to its first dot, beside each other."""
    path, samples = str(file.resolve()), dict[str, dict[str, Place]]()
    with tarfile.open(path, "r:") as shard:
        for member in shard:
            if member.isfile():
                folder, _, last = member.name.rpartition("/")
                stem, _, extension = last.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                samples.setdefault(key, {})[extension.lower()] = Place(path, member.offset_data, member.size)
    for key, files in samples.items():
        labels = next((files[extension] for extension in LABELS if extension in files), None)
        if labels is None:
            raise SourceError(f"[synthesize] expected {' or '.join(LABELS)} of {key!r} in {file} but got {list(files)}")
        instances = next((files[extension] for extension in INSTANCES if extension in files), None)
        seed = int(files[SEED].read()) if SEED in files else None
        yield Item(f"{name}/{key}", labels, instances, seed)


@lru_cache(maxsize=2)
def _group(path: str, column: str, group: int) -> Any:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as opened:
        return opened.read_row_group(group, [column]).column(column)


@lru_cache(maxsize=64)
def _first_rows(path: str) -> list[int]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as opened:
        first = [0]
        for group in range(opened.num_row_groups):
            first.append(first[-1] + opened.metadata.row_group(group).num_rows)
        return first


def _parquet_value(path: str, column: str, row: int) -> Any:
    first = _first_rows(path)
    group = next(group for group in range(len(first) - 1) if row < first[group + 1])
    return _group(path, column, group)[row - first[group]].as_py()


def _bytes_of(value: Any, place: Place) -> bytes:
    found = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(found, bytes):
        raise ValueError(
            f"[synthesize] expected bytes in column {place.column!r}, row {place.start} of {place.path} but got "
            f"{type(found).__name__}"
        )
    return found
