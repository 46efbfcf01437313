"""How publishers of a repository find the server that serves it, and ask the server to load a version."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

SERVER_FILE = ".server.json"
ADMIN_HEADER = "spade-admin"
_LOAD_TIMEOUT_S = 600.0


@contextlib.contextmanager
def announcement(root: Path, grpc_url: str, secret: str) -> Iterator[None]:
    """While the block runs, `ask_server` finds the server.

    The file is readable by its owner only, since the secret is in the file.
    """
    path = root / SERVER_FILE
    draft = path.with_name(f"{SERVER_FILE}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with this process: nobody holds the lock of a server that was killed
        json.dump({"grpc_url": grpc_url, "secret": secret}, file)
        file.flush()
        draft.replace(path)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):  # and not the file of a later server
                    path.unlink()


def ask_server(root: Path, model: str) -> None:
    """Have the running server, if there is one, load a model as the repository now has the model.

    Raises InferenceServerException, the server's answer.
    """
    try:
        with (root / SERVER_FILE).open(encoding="utf-8") as file:
            if _unlocked(file):
                return  # the server was killed; its next start reads the configuration of today
            found = json.load(file)
    except FileNotFoundError:
        return
    with triton_grpc.InferenceServerClient(found["grpc_url"].removeprefix("grpc://")) as client:
        header = {f"triton-grpc-protocol-{ADMIN_HEADER}": found["secret"]}
        client.load_model(model, headers=header, client_timeout=_LOAD_TIMEOUT_S)


def refusal(error: InferenceServerException) -> str:
    """The server's reason, without the Python stack of the model."""
    return str(error).split("\n\nAt:")[0]


def _unlocked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
