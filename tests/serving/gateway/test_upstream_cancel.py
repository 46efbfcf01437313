"""A client that leaves: its call to Triton is cancelled only where that version of Triton survives it (server#7368)."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_triton import Triton

from serving.gateway.queue import DeadlineError

TENSORS = {"label_map": np.zeros((1, 4), np.uint8)}


@pytest.mark.parametrize(
    ("version", "cancels", "leaves"),
    [
        ("2.51.0", False, "gone"),
        ("2.53.0", True, "gone"),
        ("nobody knows", False, "gone"),
        ("2.51.0", False, "deadline"),
        ("2.53.0", True, "deadline"),
    ],
)
def test_what_was_sent_is_cancelled_where_the_version_survives_it(
    version: str, cancels: bool, leaves: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with Triton(version) as triton:
            upstream = triton.upstream()
            await upstream.learn_version()
            limit_s = None if leaves == "gone" else 3.0
            call = asyncio.ensure_future(upstream.infer("spade_image", TENSORS, deadline_s=limit_s))
            await asyncio.wait_for(triton.began.wait(), 30)
            if leaves == "gone":
                call.cancel()
            with pytest.raises((asyncio.CancelledError, DeadlineError)):
                await call
            if cancels:
                await asyncio.wait_for(triton.cancelled.wait(), 30)
            else:
                assert upstream.queue.in_flight == 1  # it is drawn to its end
                triton.go.set()
            await upstream.close()
            assert upstream.queue.in_flight == 0
            assert triton.cancelled.is_set() == cancels

    with caplog.at_level("INFO", "serving.gateway"):
        asyncio.run(check())
    assert [record.message for record in caplog.records if version in record.message] == [
        f"Triton {version}: a call that was sent is "
        + ("cancelled when its client leaves" if cancels else "never cancelled, which could end this version")
    ]


def test_a_version_that_is_not_asked_for_is_not_cancelled() -> None:
    async def check() -> None:
        async with Triton("2.53.0") as triton:
            upstream = triton.upstream()
            call = asyncio.ensure_future(upstream.infer("spade_image", TENSORS))
            await triton.began.wait()
            call.cancel()
            triton.go.set()
            await upstream.close()
            assert not triton.cancelled.is_set()

    asyncio.run(check())
