"""Recording steps as graphs, with PyTorch's CUDA calls replaced by ones that note what they are given."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from serving.engines.cuda.recorder import Recorder, autotuned

CUDA = torch.device("cuda", 1)


class FakeCuda:
    """What the recorder asked of `torch.cuda`."""

    def __init__(self) -> None:
        self.pools: list[object] = []
        self.captures = 0
        self.replays = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stream:
            def __init__(self, *_: object) -> None: ...

            def wait_stream(self, _other: object) -> None: ...

        fake = self

        class Graph:
            def replay(self) -> None:
                fake.replays += 1

        @contextlib.contextmanager
        def graph(_graph: object, *, pool: object, capture_error_mode: str) -> Iterator[None]:
            assert capture_error_mode == "thread_local"
            fake.pools.append(pool)
            fake.captures += 1
            yield

        replaced: dict[str, Any] = {
            "Stream": Stream, "CUDAGraph": Graph, "graph": graph, "graph_pool_handle": object,
            "current_stream": lambda _device: Stream(), "stream": lambda _stream: contextlib.nullcontext(),
            "device": lambda _device: contextlib.nullcontext(),
        }  # fmt: skip
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    fake.install(monkeypatch)
    return fake


def test_all_graphs_share_a_pool_and_are_recorded_on_one_thread(cuda: FakeCuda) -> None:
    recorder, threads = Recorder(CUDA), []

    def step() -> None:
        assert torch.is_inference_mode_enabled()
        threads.append(threading.current_thread())

    replays = []
    callers = [threading.Thread(target=lambda: replays.append(recorder.record(step))) for _ in range(2)]
    for caller in callers:
        caller.start()
        caller.join()
    assert len(threads) == 2 * 4, "three runs to choose algorithms, and the recording"
    assert len(set(threads)) == 1, "cuDNN would choose its algorithms again on a second thread"
    assert threads[0] not in (*callers, threading.main_thread())
    assert len(cuda.pools) == 2
    assert cuda.pools[0] is cuda.pools[1]
    for replay in replays:
        replay()
    assert cuda.replays == 2


def test_a_step_that_fails_is_raised_to_the_caller(cuda: FakeCuda) -> None:
    def step() -> None:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        Recorder(CUDA).record(step)
    assert cuda.captures == 0


@pytest.mark.usefixtures("cuda")
def test_recording_leaves_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn, seen = torch.backends.cudnn, []
    monkeypatch.setattr(cudnn, "allow_tf32", False)
    monkeypatch.setattr(cudnn, "deterministic", True)
    monkeypatch.setattr(cudnn, "enabled", False)
    Recorder(CUDA).record(lambda: seen.append((cudnn.benchmark, cudnn.allow_tf32, cudnn.deterministic, cudnn.enabled)))
    assert set(seen) == {(True, False, True, False)}
    assert not cudnn.benchmark
    with pytest.raises(ZeroDivisionError), autotuned():
        raise ZeroDivisionError
    assert not cudnn.benchmark


def test_on_the_cpu_a_step_is_not_recorded() -> None:
    def step() -> None: ...

    assert Recorder(torch.device("cpu")).record(step) is step


def test_steps_run_on_the_recording_thread_and_may_record(cuda: FakeCuda) -> None:
    recorder, threads = Recorder(CUDA), []

    def step() -> str:
        assert torch.is_inference_mode_enabled()
        threads.append(threading.current_thread())
        return "done"

    def drawing() -> str:
        recorder.record(lambda: threads.append(threading.current_thread()))  # would wait for itself on another thread
        return step()

    assert recorder.run(drawing) == "done"
    assert cuda.captures == 1
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        recorder.run(lambda: 1 / 0)
    assert Recorder(torch.device("cpu")).run(threading.current_thread) is threading.current_thread()
