"""An offline run on two Ray nodes that loses a worker and a node: the folder is that of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from offline_runs import drawn, make_maps, setting_of

from serving.offline.drawings import Batch, batches
from serving.offline.painter import draw_here
from serving.offline.pool import draw_on_ray, fitting
from serving.offline.run import Run
from serving.offline.sources import find_items

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one processor each, in a folder of their own: sockets have short names."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_health_check_period_ms": "1000", "RAY_health_check_initial_delay_ms": "1000", "RAY_TMPDIR": folder,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    nodes = Cluster()
    try:
        nodes.add_node(**node)
        nodes.add_node(**node)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
        shutil.rmtree(folder)


def test_a_worker_and_a_node_are_lost_and_every_image_is_there_once(cluster: Any, tmp_path: Path) -> None:
    make_maps(tmp_path / "maps", 8)
    (tmp_path / "maps" / "bad.png").write_bytes(b"nonsense")
    setting = setting_of(tmp_path)
    _, recipe = setting.start()
    items = find_items([tmp_path / "maps"], None, tmp_path / "here")
    runs = {}
    for name in ("here", "ray"):
        (tmp_path / name).mkdir()
        runs[name] = Run(items, range(6), recipe, tmp_path / name)
    draw_here(
        batches(runs["here"].missing, 2), replace(setting, out=tmp_path / "here"), recipe,
        lambda _batch, failed, _who: runs["here"].note(failed),
    )  # fmt: skip
    lost: list[str] = []
    reported: list[str] = []

    def report(batch: Batch, failed: dict[str, str], who: tuple[str, int]) -> None:
        runs["ray"].note(failed)
        reported.extend(drawing.file for drawing in batch)
        node = next((one for one in cluster.list_all_nodes() if one.node_id == who[0]), None)
        if not lost and node is cluster.head_node:  # the other node draws on while this worker starts again
            lost.append("worker")
            os.kill(who[1], signal.SIGKILL)
        elif lost == ["worker"] and node is not None and node is not cluster.head_node:
            lost.append("node")
            cluster.remove_node(node, allow_graceful=False)

    assert fitting(None) == (2, 1)
    draw_on_ray(batches(runs["ray"].missing, 2), replace(setting, out=tmp_path / "ray"), recipe, 2, report)
    for run in runs.values():
        run.finish()
    assert lost == ["worker", "node"]
    assert sorted(reported) == sorted(drawing.file for drawing in runs["ray"].missing)  # once each
    assert drawn(tmp_path / "ray") == drawn(tmp_path / "here")
    assert len(drawn(tmp_path / "ray")) == 8 * 6 + 2  # images, manifest and the list of what failed
