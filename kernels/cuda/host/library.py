"""The shared library of CUDA kernels: found, loaded, and called through ctypes.

ctypes suffices: the interface is pointers and numbers, and a call costs microseconds beside a launch. One wrapper
drives the installed library and the library that the tests compile for the CPU from the same sources.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NAME = "libspade_cuda.so"

DType = Literal["float32", "float16", "bfloat16"]
Layout = Literal["nchw", "nhwc"]
Norm = Literal["given", "instance", "batch"]

# The numbers of the enumerations in kernels/include/spade_cuda.h.
DTYPES: dict[str, int] = {"float32": 0, "float16": 1, "bfloat16": 2}
LAYOUTS: dict[str, int] = {"nchw": 0, "nhwc": 1}
NORMS: dict[str, int] = {"given": 0, "instance": 1, "batch": 2}
ERROR_LAUNCH = 7

# The fields of every struct of arguments, in order. `*` marks a pointer, `.` a double, and `[` an array of one int64
# for each level of a plan; all others are int64.
STRUCTS: dict[str, str] = {
    "plan_batch": "*symbols *index *offsets3 *offsets5 *patches3 *patches5 *scratch scratch_bytes levels n map_height "
    "map_width row_stride n_symbols kernel_size [height [width [first3 [room3 [first5 [room5",
    "gather_embed": "*table *bias *patches *out *first_row *last_row rows taps symbols depth relu zero_row dtype",
    "gather_codebook": "*actv *patches *weight *bias *entries *products *first_row *last_row *first_actv_row "
    "*last_actv_row rows actv_rows taps channels dtype",
    "norm_statistics": "*x *mean *rstd *scratch scratch_bytes n pixels channels norm .epsilon dtype layout",
    "norm_backward": "*x *g *mean *rstd *dx *scratch scratch_bytes n pixels channels norm dtype layout",
    "modulate_dense": "*x *gamma *beta *mean *rstd *out *scratch scratch_bytes n pixels channels modulation_stride "
    "statistics_stride norm .epsilon leaky dtype layout",
    "modulate_dense_backward": "*x *gamma *beta *dy *mean *rstd *dx *dgamma *dbeta *scratch scratch_bytes n pixels "
    "channels modulation_stride gradient_stride statistics_stride norm leaky dtype layout",
    "modulate_codebook": "*x *entries *index *mean *rstd *out rows statistics_stride n height width channels shift "
    "leaky dtype layout",
    "image_conv": "*x *constant *weight *bias *values *pixels n height width channels dtype",
    "modulate_codebook_backward": "*x *entries *index *mean *rstd *dy *sorted *order *dx *dentries *scratch "
    "scratch_bytes rows statistics_stride n height width channels shift leaky unscaled dtype",
}


# The struct of an operation whose struct has another name.
_STRUCT_OF = {
    "plan_find": "plan_batch",
    "plan_write": "plan_batch",
    "embed": "gather_embed",
    "codebook": "gather_codebook",
}
MAX_LEVELS = 10

Argument = float | Sequence[int] | None


@dataclass(frozen=True)
class Place:
    """Where a call launches: the number of the device that holds its pointers, and a stream of that device.

    None is the calling thread's current device; stream 0 is a device's default stream.
    """

    device: int | None = None
    stream: int = 0


class CudaError(RuntimeError):
    """The CUDA kernels are absent, or refused their arguments or the launch."""


def struct_fields(name: str) -> list[tuple[str, Any]]:
    """The names and C types of a struct's fields."""
    kinds: dict[str, Any] = {"*": ctypes.c_void_p, ".": ctypes.c_double, "[": ctypes.c_int64 * MAX_LEVELS}
    return [(word.lstrip("*.["), kinds.get(word[0], ctypes.c_int64)) for word in STRUCTS[name].split()]


_STRUCTS = {name: type(f"spade_{name}", (ctypes.Structure,), {"_fields_": struct_fields(name)}) for name in STRUCTS}


def _struct(op: str, arguments: Mapping[str, Argument]) -> ctypes.Structure:
    values = {k: (ctypes.c_int64 * MAX_LEVELS)(*v) if isinstance(v, Sequence) else v for k, v in arguments.items()}
    struct: ctypes.Structure = _STRUCTS[_STRUCT_OF.get(op, op)](**values)
    return struct


class Library:
    """A loaded library of CUDA kernels.

    Attributes:
        path: of the file.
        device: of the pointers that the kernels take: "cuda", or "cpu" for the kernels that the tests compile.

    Raises CudaError if the file cannot be loaded.
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
        self._dll.spade_cuda_use_device.restype = ctypes.c_int64

    @property
    def built(self) -> bool:
        """Whether the library holds CUDA kernels. One that was built without CUDA refuses every call."""
        return bool(self._dll.spade_cuda_built())

    def call(self, op: str, place: Place, **arguments: Argument) -> None:
        """Launch `spade_cuda_<op>` at a place. Pointers are addresses; a missing field is 0. Raises CudaError."""
        struct = _struct(op, arguments)
        with self._current(place.device):
            status = self._dll[f"spade_cuda_{op}"](ctypes.byref(struct), ctypes.c_void_p(place.stream))
            self.check(op, status, **arguments)

    def call_grouped(self, op: str, place: Place, problems: Sequence[Mapping[str, Argument]]) -> None:
        """Launch `spade_cuda_<op>` once for several problems. Raises CudaError, with the first problem's numbers."""
        structs = [_struct(op, problem) for problem in problems]
        array = (type(structs[0]) * len(structs))(*structs)
        with self._current(place.device):
            status = self._dll[f"spade_cuda_{op}"](array, ctypes.c_int64(len(structs)), ctypes.c_void_p(place.stream))
            self.check(op, status, problems=len(problems), **problems[0])

    @contextlib.contextmanager
    def _current(self, device: int | None) -> Iterator[None]:
        """Make a device the current one within the block, for a launch goes to the current device."""
        if device is None:
            yield
            return
        before = self._use_device(device)
        try:
            yield
        finally:
            if before != device:
                self._use_device(before)

    def _use_device(self, device: int) -> int:
        before = int(self._dll.spade_cuda_use_device(ctypes.c_int64(device)))
        if before < 0:
            self.check("use_device", -before, device=device)
        return before

    def check(self, op: str, status: int, **arguments: object) -> None:
        """Raise CudaError with the numbers among the arguments, unless status is 0."""
        if not status:
            return
        message = self._dll.spade_cuda_status_message(status).decode()
        if status == ERROR_LAUNCH:
            message += f": {self._dll.spade_cuda_last_error().decode()}"
        struct = _STRUCT_OF.get(op, op)
        pointers = (
            {name for name, kind in struct_fields(struct) if kind is ctypes.c_void_p} if struct in STRUCTS else ()
        )
        passed = ", ".join(f"{name}={value}" for name, value in arguments.items() if name not in pointers)
        raise CudaError(f"[{op}] {message}; got {passed}")

    def norm_scratch_bytes(self, n: int, pixels: int, channels: int, norm: Norm) -> int:
        """Bytes of scratch for a kernel that computes statistics, or their gradient. Raises CudaError."""
        return self._size("norm_scratch_bytes", n=n, pixels=pixels, channels=channels, norm=NORMS[norm])

    def plan_scratch_bytes(self, **sizes: Argument) -> int:
        """Bytes of scratch for the plan of a batch of these sizes. Raises CudaError."""
        function = self._dll.spade_cuda_plan_scratch_bytes
        function.restype = ctypes.c_int64
        size = int(function(ctypes.byref(_struct("plan_find", sizes))))
        if size < 0:
            self.check("plan_find", -size, **sizes)
        return size

    def codebook_backward_scratch_bytes(self, n: int, height: int, width: int, channels: int) -> int:
        """Bytes of scratch for the sorted sums of modulate_codebook_backward. Raises CudaError."""
        name = "modulate_codebook_backward_scratch_bytes"
        return self._size(name, n=n, height=height, width=width, channels=channels)

    def _size(self, op: str, **sizes: int) -> int:
        function = self._dll[f"spade_cuda_{op}"]
        function.restype = ctypes.c_int64
        size = int(function(*map(ctypes.c_int64, sizes.values())))
        if size < 0:
            self.check(op, -size, **sizes)
        return size


def library_path() -> Path:
    """The file of the installed library: in the folder `cuda` beside the compiled module."""
    from kernels.native import native

    return Path(native.__file__).parent / "cuda" / NAME


_used: list[Library] = []  # the library that `use` named, if any


def use(library: Library) -> None:
    """Make a library the one that `installed` returns in this process, such as emulated kernels in a rehearsal."""
    _used[:] = [library]


def installed() -> Library:
    """The library that was installed with this package. Raises CudaError if it was built without CUDA kernels."""
    return _used[0] if _used else _installed()


@functools.cache
def _installed() -> Library:
    library = Library(library_path())
    if not library.built:
        library.check("cuda", 8, path=library.path)
    return library
