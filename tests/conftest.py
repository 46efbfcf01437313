"""What all tests share: threads that fit parallel workers, and the folder of real label maps."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.made_once import folder_of_run

REPOSITORY = Path(__file__).resolve().parent.parent

# Tests fork processes beside the gRPC clients of earlier tests; gRPC's handlers of a fork would end some children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# No test fails because the machine is busy: neither an example nor the drawing of examples has a time limit.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell starts commands in the background with SIGINT ignored, and every child would inherit that: tests of Ctrl-C
# need children that listen.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Garbage is collected while tests run, of what they make.

    The million objects of imported modules took a fifth of the time of finding the tests, and a second after each file.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_worker() -> None:
    """A thread a core over all workers, or OMP_NUM_THREADS: on a busy machine threads that wait spin."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cores = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    torch.set_num_threads(max(1, cores // workers))


def pytest_unconfigure() -> None:
    """Frozen objects would be reported as leaks by libraries that count theirs when the interpreter ends."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    """Commands that a test runs in its own process set the threads that they were told."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def _memory_goes_back_after_each_file() -> Iterator[None]:
    """Without this, glibc keeps what tests have freed: gigabytes a worker, until the kernel kills the worker."""
    yield
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it; other C libraries may not
    if trim is not None:
        trim(0)


@pytest.fixture(scope="session")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """From the first test that asks for it, all parallel workers of a run trace each graph of `spade export` once."""
    from tests.export.traced import traced_once  # imports onnx, which few tests need

    folder = folder_of_run(tmp_path_factory) / "traced"
    folder.mkdir(exist_ok=True)
    with traced_once(folder):
        yield


@pytest.fixture(scope="session")
def real_maps() -> Path:
    """A folder with label/ and inst/ of COCO-Stuff PNGs: $SPADE_REAL_MAPS, or shared/data beside the repository."""
    folder = Path(os.environ.get("SPADE_REAL_MAPS", REPOSITORY.parent / "shared" / "data" / "coco_stuff"))
    if not (folder / "label").is_dir():
        pytest.skip(f"no real label maps in {folder}; set SPADE_REAL_MAPS to a folder holding label/ and inst/")
    return folder
