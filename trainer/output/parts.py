"""A safetensors file in parts of a bounded size: the first part has the file's name and is written last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from spade_core.files.whole_file import write_whole

PARTS = "parts"  # the header's field of the first part: how many there are
_MEGABYTE = 10**6


def write_parts(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], part_mb: int) -> None:
    """Write tensors as `path` and, where they take more than `part_mb` megabytes, further parts beside it.

    A tensor is never split, so a part is larger where one tensor is. `part_mb` 0 writes one file. A process killed at
    any moment leaves no `path` without its other parts. Raises OSError and SafetensorError.
    """
    parts = list(_parted(tensors, part_mb * _MEGABYTE))
    for number, part in reversed(list(enumerate(parts))):
        fields = dict(header) | ({PARTS: str(len(parts))} if number == 0 else {})
        write_whole(_name(path, number), partial(_save, part, fields))


def read_parts(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of all parts. Raises OSError and SafetensorError."""
    header: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    number, count = 0, 1
    while number < count:
        with safe_open(_name(path, number), framework="pt", device="cpu") as file:
            if number == 0:
                header = dict(file.metadata() or {})
                count = int(header.pop(PARTS, "1"))
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        number += 1
    return header, found


def remove_parts(path: Path) -> None:
    """Remove a file, first its first part: the rest alone is no checkpoint."""
    path.unlink(missing_ok=True)
    for part in _others(path.parent, path.stem):
        part.unlink()


def remove_orphans(folder: Path) -> None:
    """Remove the parts whose first part a killed process did not write, or removed."""
    for part in _others(folder, "*"):
        if not part.with_name(part.name.partition(".")[0] + part.suffix).exists():
            part.unlink()


def _save(tensors: dict[str, Tensor], header: dict[str, str], draft: Path) -> None:
    save_file(tensors, draft, header)


def _parted(tensors: Mapping[str, Tensor], most: int) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for key, tensor in tensors.items():
        if most and part and size + tensor.nbytes > most:
            yield part
            part, size = {}, 0
        part[key] = tensor
        size += tensor.nbytes
    yield part


def _others(folder: Path, stem: str) -> Iterator[Path]:
    return folder.glob(f"{stem}.part-*.safetensors")


def _name(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.stem}.part-{number:03d}{path.suffix}")
