"""OpenVINO's core, one for the whole process."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def openvino_core() -> Any:
    """The `openvino.Core` that every part of the process uses. Raises ModuleNotFoundError without OpenVINO.

    OpenVINO's CPU plugin gives the thread that loads it another stack for signal handlers, and frees that stack when
    its core goes. Of two cores in one thread the second puts the first one's freed stack back: the next signal with a
    handler in Python, such as SIGCHLD or Ctrl-C, then ends the process without a message.
    """
    import openvino

    return openvino.Core()
