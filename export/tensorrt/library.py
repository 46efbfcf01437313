"""The two libraries that build and run engines: TensorRT, and TensorRT for RTX. Both are passed as a module."""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from export.tensorrt.options import Kind

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger(__name__)

_PACKAGES: dict[Kind, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx"),  # of PyPI's wheels, of NVIDIA's archive
}
TITLES: dict[Kind, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
_INSTALL: dict[Kind, str] = {
    "tensorrt": "on a machine with an NVIDIA GPU: `pip install 'tensorrt-cu13>=11.4,<12'`",
    "rtx": "on any machine: `pip install -e '.[rtx]'` in the checkout",
}
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


class EngineError(RuntimeError):
    """An engine that could not be built; the message holds TensorRT's reason."""


class Api(Protocol):
    """What this project calls of either library. The types are those of TensorRT 11.4."""

    __version__: str
    Builder: type[trt.Builder]
    BuilderFlag: type[trt.BuilderFlag]
    Dims: type[trt.Dims]
    HardwareCompatibilityLevel: type[trt.HardwareCompatibilityLevel]
    ILogger: type[trt.ILogger]
    IProgressMonitor: type[trt.IProgressMonitor]
    LayerInformationFormat: type[trt.LayerInformationFormat]
    LayerType: type[trt.LayerType]
    MemoryPoolType: type[trt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[trt.NetworkDefinitionCreationFlag]
    OnnxParser: type[trt.OnnxParser]
    OnnxParserFlag: type[trt.OnnxParserFlag]
    OnnxParserRefitter: type[trt.OnnxParserRefitter]
    ProfilingVerbosity: type[trt.ProfilingVerbosity]
    Refitter: type[trt.Refitter]
    Runtime: type[trt.Runtime]


@dataclass(frozen=True)
class Library:
    """One of the two libraries, imported.

    Attributes:
        kind: `tensorrt` or `rtx`, as a manifest names it.
        trt: the module.
    """

    kind: Kind
    trt: Api

    @property
    def version(self) -> str:
        """The exact version, such as 11.4.0.106."""
        return self.trt.__version__

    @property
    def title(self) -> str:
        """The name for users, and the version."""
        return f"{TITLES[self.kind]} {self.version}"


def load(kind: Kind) -> Library:
    """Import a library. Raises ImportError that says how to install it."""
    for name in _PACKAGES[kind]:
        try:
            return Library(kind, cast(Api, importlib.import_module(name)))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise ImportError(f"[tensorrt] expected the package {_PACKAGES[kind][0]} but it is not installed; {_INSTALL[kind]}")


def choose(builder: str) -> Library:
    """The library for `--builder auto`, `tensorrt` or `rtx`. `auto` is TensorRT where it has a builder, else RTX's.

    Logs what `auto` chose. Raises ImportError where the library is not installed, EngineError where it has no builder.
    """
    if builder != "auto":
        return load(cast(Kind, builder))
    try:
        library = load("tensorrt")
        make_builder(library)
    except (ImportError, EngineError) as reason:
        try:
            library = load("rtx")
        except ImportError as error:
            raise ImportError(f"{reason}; or {error}") from None
        log.info("building with %s: %s", library.title, reason)
    else:
        log.info("building with %s", library.title)
    return library


def make_builder(library: Library) -> trt.Builder:
    """A builder. Raises EngineError where the library's own parts, or a GPU that it needs, are missing."""
    try:
        return library.trt.Builder(library_log(library.trt))
    except TypeError as error:  # the library's factory gave a null pointer
        raise EngineError(
            f"[tensorrt] expected a {TITLES[library.kind]} builder but got none ({error}); TensorRT needs its builder "
            "libraries (tensorrt-cu13-libs), an NVIDIA GPU and a driver for CUDA 13; --builder rtx needs no GPU"
        ) from None


class LibraryLog:
    """What a library says: warnings go to our log at once, errors into the message of what failed.

    Attributes:
        errors: since the last `clear` or `reasons`.
        scratch_bytes: scratch memory of each profile of the engine that was built since the last `clear`.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the last build."""
        self.errors: list[str] = []
        self.scratch_bytes: list[int] = []

    def reasons(self) -> str:
        """The errors since the last call, for a message."""
        errors, self.errors = self.errors, []
        return "; ".join(errors) or "no reason from the library"

    def log(self, severity: Any, msg: str) -> None:
        """TensorRT's callback."""
        if severity.name in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(msg)
        elif severity.name == "WARNING":
            log.warning("%s", msg)
        elif found := _ACTIVATIONS.fullmatch(msg):
            self.scratch_bytes.append(int(found[1]))


_logs: dict[int, Any] = {}


def library_log(trt: Api) -> Any:
    """A library's `LibraryLog`, made an ILogger: one in a process, since a library keeps its first logger."""
    if id(trt) not in _logs:
        _logs[id(trt)] = implementation(LibraryLog, trt.ILogger)()
    return _logs[id(trt)]


def implementation(ours: type[Any], interface: type[Any]) -> type[Any]:
    """`ours` as a class that implements an interface of the library: the module is known at run time only."""

    def init(self: Any, *arguments: Any) -> None:
        interface.__init__(self)
        ours.__init__(self, *arguments)

    return type(ours.__name__, (ours, interface), {"__init__": init})
