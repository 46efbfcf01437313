"""The shared library of CUDA kernels: found, loaded, and called through ctypes.

ctypes and not a second nanobind module: the interface is pointers and numbers, a call costs microseconds next to a
launch, and one wrapper then drives both the installed library and the same sources compiled for the CPU by the tests.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Literal

NAME = "libspade_cuda.so"

DType = Literal["float32", "float16", "bfloat16"]
Layout = Literal["nchw", "nhwc"]
Norm = Literal["given", "instance", "batch"]

# The numbers of the enumerations in kernels/include/spade_cuda.h.
DTYPES: dict[str, int] = {"float32": 0, "float16": 1, "bfloat16": 2}
LAYOUTS: dict[str, int] = {"nchw": 0, "nhwc": 1}
NORMS: dict[str, int] = {"given": 0, "instance": 1, "batch": 2}
ERROR_LAUNCH = 7

# Fields of every struct of arguments, in order: `*` marks a pointer, `.` a double, the rest are int64.
STRUCTS: dict[str, str] = {
    "norm_statistics": "*x *mean *rstd *scratch scratch_bytes n pixels channels norm .epsilon dtype layout",
    "norm_backward": "*x *g *mean *rstd *dx *scratch scratch_bytes n pixels channels norm dtype layout",
    "modulate_dense": "*x *gamma *beta *mean *rstd *out *scratch scratch_bytes n pixels channels modulation_stride "
    "statistics_stride norm .epsilon leaky dtype layout",
    "modulate_dense_backward": "*x *gamma *beta *dy *mean *rstd *dx *dgamma *dbeta *scratch scratch_bytes n pixels "
    "channels modulation_stride gradient_stride statistics_stride norm leaky dtype layout",
    "modulate_codebook": "*x *entries *index *mean *rstd *out statistics_stride n height width channels shift leaky "
    "dtype layout",
    "modulate_codebook_backward": "*x *entries *index *mean *rstd *dy *sorted *order *dx *dentries *scratch "
    "scratch_bytes rows statistics_stride n height width channels shift leaky unscaled dtype",
}


class CudaError(RuntimeError):
    """CUDA kernels that are not there, or arguments or a launch that they refused."""


def struct_fields(name: str) -> list[tuple[str, type[ctypes._SimpleCData[object]]]]:
    """Names and C types of a struct's fields."""
    kinds = {"*": ctypes.c_void_p, ".": ctypes.c_double}
    return [(word.lstrip("*."), kinds.get(word[0], ctypes.c_int64)) for word in STRUCTS[name].split()]  # type: ignore[misc]


_STRUCTS = {name: type(f"spade_{name}", (ctypes.Structure,), {"_fields_": struct_fields(name)}) for name in STRUCTS}


class Library:
    """A loaded library.

    Attributes:
        path: of the file.
        device: where its pointers lie: "cuda", or "cpu" for the kernels compiled for the CPU by the tests.
    """

    def __init__(self, path: Path, device: Literal["cuda", "cpu"] = "cuda") -> None:
        self.path, self.device = path, device
        try:
            self._dll = ctypes.CDLL(str(path))
        except OSError as error:
            raise CudaError(
                f"[cuda] expected the library of CUDA kernels at {path} but it cannot be loaded: {error}; "
                "build it with `pip install .`"
            ) from error
        for name in ("spade_cuda_status_message", "spade_cuda_last_error"):
            getattr(self._dll, name).restype = ctypes.c_char_p
        for name in ("spade_cuda_norm_scratch_bytes", "spade_cuda_modulate_codebook_backward_scratch_bytes"):
            getattr(self._dll, name).restype = ctypes.c_int64
            getattr(self._dll, name).argtypes = [ctypes.c_int64] * 4

    @property
    def built(self) -> bool:
        """Whether it holds CUDA kernels, or only says that it does not."""
        return bool(self._dll.spade_cuda_built())

    def call(self, op: str, stream: int, **arguments: float | None) -> None:
        """Launch `spade_cuda_<op>` on a stream. Pointers are addresses; one left out is null. Raises CudaError."""
        struct = _STRUCTS[op](**arguments)
        status = self._dll[f"spade_cuda_{op}"](ctypes.byref(struct), ctypes.c_void_p(stream))
        self.check(op, status, **arguments)

    def check(self, op: str, status: int, **arguments: object) -> None:
        """Raise CudaError, with the numbers that were passed, unless status is 0."""
        if not status:
            return
        message = self._dll.spade_cuda_status_message(status).decode()
        if status == ERROR_LAUNCH:
            message += f": {self._dll.spade_cuda_last_error().decode()}"
        pointers = {name for name, kind in struct_fields(op) if kind is ctypes.c_void_p} if op in STRUCTS else set()
        passed = ", ".join(f"{name}={value}" for name, value in arguments.items() if name not in pointers)
        raise CudaError(f"[{op}] {message}; got {passed}")

    def norm_scratch_bytes(self, n: int, pixels: int, channels: int, norm: Norm) -> int:
        """Scratch for a kernel that computes or passes through statistics. Raises CudaError."""
        size = int(self._dll.spade_cuda_norm_scratch_bytes(n, pixels, channels, NORMS[norm]))
        if size < 0:
            self.check("norm_scratch_bytes", -size, n=n, pixels=pixels, channels=channels, norm=norm)
        return size

    def codebook_backward_scratch_bytes(self, n: int, height: int, width: int, channels: int) -> int:
        """Scratch for the sorted sums of modulate_codebook_backward. Raises CudaError."""
        size = int(self._dll.spade_cuda_modulate_codebook_backward_scratch_bytes(n, height, width, channels))
        if size < 0:
            self.check("modulate_codebook", -size, n=n, height=height, width=width, channels=channels)
        return size


def library_path() -> Path:
    """Where the installed library lies: in the folder `cuda` beside the compiled module."""
    from kernels import _native

    return Path(_native.__file__).parent / "cuda" / NAME


@functools.cache
def installed() -> Library:
    """The library that was installed with this package, with CUDA kernels in it. Raises CudaError."""
    library = Library(library_path())
    if not library.built:
        library.check("cuda", 8, path=library.path)
    return library
