"""Recording a CUDA graph makes the right calls of the driver in order; a fake driver lists the calls."""

from __future__ import annotations

from typing import Any

import pytest

from serving.engines.cuda import graph as cuda_graph
from serving.engines.cuda.graph import CudaGraphError, recording


class Driver:
    """A fake libcuda: lists the calls, and returns the given status of each; handles are numbers."""

    def __init__(self, **status: int) -> None:
        self.calls: list[str] = []
        self.status = status

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuStreamEndCapture" and not self.status.get(name):
                arguments[1]._obj.value = 11
            if name == "cuGraphInstantiateWithFlags" and not self.status.get(name):
                assert arguments[1].value == 11
                arguments[0]._obj.value = 22
            if name == "cuGraphLaunch":
                assert (arguments[0].value, arguments[1].value) == (22, 7)
            return self.status.get(name, 0)

        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Driver:
    fake = Driver(**getattr(request, "param", {}))
    monkeypatch.setattr(cuda_graph, "_driver", lambda: fake)
    return fake


def test_a_graph_is_recorded_instantiated_and_launched(driver: Driver) -> None:
    with recording(7) as graph:
        driver.calls.append("work")
    graph.launch(7)
    del graph
    assert driver.calls == [
        "cuStreamBeginCapture_v2", "work", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy",
        "cuGraphLaunch", "cuGraphExecDestroy",
    ]  # fmt: skip


def test_work_that_fails_ends_the_recording(driver: Driver) -> None:
    with pytest.raises(ZeroDivisionError), recording(7):
        raise ZeroDivisionError
    assert driver.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("driver", [{"cuStreamEndCapture": 901}], indirect=True)
def test_a_recording_the_driver_refuses_is_said(driver: Driver) -> None:
    with (
        pytest.raises(CudaGraphError, match="cuStreamEndCapture to succeed but got CUDA driver error 901"),
        recording(7),
    ):
        pass
    assert "cuGraphLaunch" not in driver.calls
