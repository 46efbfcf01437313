"""Records steps as CUDA graphs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Recorder:
    """Records the steps of one generator; on the CPU a recorded step is the step itself.

    All graphs share one pool of memory, since they run one after another: no activation of one lives while another
    runs. All are recorded on one thread, because cuDNN keeps its choice of algorithms for each thread: a shape of a
    conv is tuned once, whichever thread asks for a program.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            self._pool = torch.cuda.graph_pool_handle()
            self._thread = ThreadPoolExecutor(1, "recorder", self._note_thread)
            self._ident = 0  # of that thread

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """A function that runs the step as a graph, on the calling thread's current stream. Runs the step three times.

        Raises what the step raises.
        """
        if not self._on_cuda:
            return step
        stream = torch.cuda.current_stream(self._device)
        return self._on_thread(lambda: self._record(step, stream))

    def run(self, step: Callable[[], Result]) -> Result:
        """Run a step on the thread that records, on the calling thread's current stream; return what it returns.

        A library's conv of a shape that a graph holds has the graph's algorithm there, in `autotuned`. Raises what the
        step raises.
        """
        if not self._on_cuda:
            return step()
        stream = torch.cuda.current_stream(self._device)

        def on_stream() -> Result:
            with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(stream):
                return step()

        return self._on_thread(on_stream)

    def _note_thread(self) -> None:
        self._ident = threading.get_ident()

    def _on_thread(self, step: Callable[[], Result]) -> Result:
        """Run a step on the recording thread; at once where that is the calling thread."""
        return step() if threading.get_ident() == self._ident else self._thread.submit(step).result()

    @torch.inference_mode()
    def _record(self, step: Callable[[], None], current: torch.cuda.Stream) -> Callable[[], None]:
        with autotuned(), torch.cuda.device(self._device):
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            side.wait_stream(current)
            # Before the recording cuDNN chooses its algorithms, and libraries allocate their memory.
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                step()
        return graph.replay


@contextlib.contextmanager
def autotuned() -> Iterator[None]:
    """cuDNN measures its algorithms within the block, and keeps the fastest.

    Unlike `torch.backends.cudnn.flags`, which resets every flag it is not given, this leaves TF32 and determinism as
    the user set them.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
