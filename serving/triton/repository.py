"""A repository of published model versions: each is published whole or not at all, and rolled back by number.

    REPO/spade/config.pbtxt        configuration of the live version
    REPO/spade/3/                  a version: its files, manifest.json, and both models' configurations
    REPO/spade/3.refused           a server's reason, where a server did not load version 3
    REPO/spade_image/config.pbtxt
    REPO/spade_image/1/model.py
    REPO/.server.json              address of the repository's server, while the server runs

A version is written aside, hashed, and renamed into place. A rename of config.pbtxt and a load request make a version
live. Triton loads the new version beside the old one. The old version answers until the new one is ready, and goes on
where the new one is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from serving.triton.announcement import announcement, ask_server, refusal
from serving.triton.model_config import (
    MODEL_CODE,
    ModelOptions,
    set_parameters,
    spade_config,
    spade_image_config,
    tensorrt_config,
)
from spade_core.config import GeneratorConfig
from spade_core.files.manifest import ManifestError, verify_manifest, write_manifest
from spade_core.files.whole_file import sync, write_whole

WEIGHTS = "weights.safetensors"
_NO_ANSWER = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")  # the server said nothing about the version


class PublishError(RuntimeError):
    """A version did not go live; the message says why, and which version serves."""


@dataclass(frozen=True)
class Version:
    """A version of a repository.

    Attributes:
        number: the name of the version's folder.
        live: True for the version that a server of this repository loads.
        facts: facts of the publication (engine, precision, source and its hash, ..).
        fault: the damage of the version's files; None for a whole version.
        refused: a server's reason for not loading the version; a roll-back passes over refused versions.
    """

    number: int
    live: bool
    facts: dict[str, Any]
    fault: str | None
    refused: str | None


def publish_checkpoint(
    root: Path, options: ModelOptions, config: GeneratorConfig, facts: Mapping[str, Any], keep: int = 5
) -> Version:
    """Publish `options.weights` for the engines of this package (Python backend) and make the version live.

    `config` is the configuration of the weights. The newest `keep` versions that no server refused stay, the others are
    removed. Raises PublishError, ValueError.
    """
    if options.weights is None:
        raise PublishError("[publish] expected weights but got none; seeded weights are not published")
    model = spade_config(options, config)
    set_parameters(model, {"package": None, "published": True, "weights": WEIGHTS, "sha256": None})
    files = {WEIGHTS: options.weights, "model.py": MODEL_CODE / "spade" / "model.py"}
    return _publish(root, files, model, spade_image_config(options, config, facts), facts, keep)


def publish_engine(
    root: Path, engine: Path, options: ModelOptions, config: GeneratorConfig, facts: Mapping[str, Any], keep: int = 5
) -> Version:
    """Publish a TensorRT engine file and make the version live, as `publish_checkpoint` does for a checkpoint.

    Triton's own backend runs an engine of the dense graph that TensorRT built; our backend runs the others. `facts`
    come from `export.tensorrt.builder.build_engine`.
    """
    stripped = facts["options"]["strip_weights"]
    if facts["form"] == "dense" and facts["runtime"] == "tensorrt":
        if stripped:
            raise PublishError(
                "[publish] expected an engine with its weights but got one without: Triton's own backend cannot put "
                "them back; export without --strip-weights, or the codebook graph"
            )
        model = tensorrt_config(options, config)
        return _publish(
            root, {"model.plan": engine}, model, spade_image_config(options, config, facts, plain_upstream=True),
            facts, keep,
        )  # fmt: skip
    model = spade_config(options, config)
    set_parameters(
        model, {"package": None, "published": True, "weights": engine.name, "engine": "tensorrt", "sha256": None}
    )
    files = {engine.name: engine, "model.py": MODEL_CODE / "spade" / "model.py"}
    if stripped:
        onnx_file = engine.with_suffix(".onnx")
        files |= {path.name: path for path in (onnx_file, *engine.parent.glob(f"{onnx_file.name}.*.data"))}
    return _publish(root, files, model, spade_image_config(options, config, facts), facts, keep)


def roll_back(root: Path, number: int | None = None) -> Version:
    """Make version `number` live again. Without `number`, the newest good version before the live one.

    A good version is whole, and no server refused it. Raises PublishError.
    """
    with _locked(root):
        found = versions(root)
        live = next((v.number for v in found if v.live), None)
        if number is None:
            good = [v.number for v in found if v.fault is None and v.refused is None]
            older = [number for number in good if live is not None and number < live]
            if not older:
                raise PublishError(
                    f"[publish] expected a whole version older than the live one ({live}) in '{root}' but got "
                    f"{good} out of {[v.number for v in found]}; publish one"
                )
            number = older[-1]
        if number not in [v.number for v in found]:
            raise PublishError(
                f"[publish] expected one of the versions {[v.number for v in found]} of '{root}' but got {number}"
            )
        _go_live(root, number)
    return _version(root, number, number)


def versions(root: Path) -> list[Version]:
    """Every version, oldest first. Reads and hashes the files of each."""
    live = live_number(root)
    return [_version(root, number, live) for number in _numbers(root)]


def live_number(root: Path) -> int | None:
    """The version that config.pbtxt names, or None in an empty repository."""
    path = root / "spade" / "config.pbtxt"
    if not path.exists():
        return None
    chosen = text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig()).version_policy.specific.versions
    return int(chosen[0]) if chosen else None


def check_live(root: Path) -> Version:
    """The live version. Raises PublishError where there is none, or its files are damaged."""
    with _locked(root):
        number = live_number(root)
        if number is None:
            raise PublishError(f"[publish] expected a published version in '{root}' but found none; run `spade export`")
        version = _version(root, number, number)
        if version.fault:
            raise PublishError(f"{version.fault}, with `spade repository {root} --roll-back`")
        _switch(root, root / "spade" / str(number))  # finishes a publication that was killed between its two renames
    return version


@contextlib.contextmanager
def announced(root: Path, grpc_url: str, secret: str, started: int | None) -> Iterator[None]:
    """While the block runs, publishers find the server of the repository.

    `started` was live before the server started; the server is asked to load what was published since. Raises
    PublishError where the server refuses.
    """
    with announcement(root, grpc_url, secret):
        _catch_up(root, started)
        yield


def _version(root: Path, number: int, live: int | None) -> Version:
    mark = _refusal(root, number)
    refused = mark.read_text(encoding="utf-8") if mark.exists() else None
    try:
        return Version(number, number == live, verify_manifest(root / "spade" / str(number)), None, refused)
    except ManifestError as error:
        return Version(number, number == live, {}, str(error), refused)


def _refusal(root: Path, number: int) -> Path:
    return root / "spade" / f"{number}.refused"


def _numbers(root: Path) -> list[int]:
    return sorted(int(path.name) for path in (root / "spade").glob("*") if path.name.isdecimal())


def _publish(
    root: Path, files: Mapping[str, Path], model: Any, image: Any, facts: Mapping[str, Any], keep: int
) -> Version:
    (root / "spade").mkdir(parents=True, exist_ok=True)
    with _locked(root):
        number = max(_numbers(root), default=0) + 1
        model.version_policy.specific.versions[:] = [number]
        draft = root / f".publishing-{secrets.token_hex(4)}"
        try:
            draft.mkdir()
            for name, source in files.items():
                shutil.copyfile(source, draft / name)
                sync(draft / name)
            for message in (model, image):
                (draft / f"{message.name}.pbtxt").write_text(text_format.MessageToString(message), encoding="utf-8")
            write_manifest(draft, facts)
            draft.rename(root / "spade" / str(number))
            sync(root / "spade")
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _go_live(root, number)
        kept = [n for n in _numbers(root) if not _refusal(root, n).exists()][-keep:]
        for old in set(_numbers(root)) - set(kept):
            shutil.rmtree(root / "spade" / str(old))
            _refusal(root, old).unlink(missing_ok=True)
    return _version(root, number, number)


def _go_live(root: Path, number: int) -> None:
    """Switch both configurations to a version and have the server load the version.

    Raises PublishError where the version is damaged or the server refuses; the version before is then live again.
    """
    folder, before = root / "spade" / str(number), live_number(root)
    try:
        verify_manifest(folder)
    except ManifestError as error:
        raise PublishError(f"{error}; version {before} stays live") from None
    _put(MODEL_CODE / "spade_image" / "model.py", root / "spade_image" / "1" / "model.py")
    changed = _switch(root, folder)
    try:
        for name in changed:
            ask_server(root, name)
    except InferenceServerException as error:
        if error.status() not in _NO_ANSWER:
            _refusal(root, number).write_text(refusal(error), encoding="utf-8")
        if before is not None:
            for name in _switch(root, root / "spade" / str(before)):
                with contextlib.suppress(InferenceServerException):
                    ask_server(root, name)
        raise PublishError(
            f"[publish] expected the server to load version {number} of '{root}' but it refused: {refusal(error)}; "
            f"version {before} stays live"
        ) from None
    _refusal(root, number).unlink(missing_ok=True)


def _switch(root: Path, folder: Path) -> list[str]:
    """Put a version's configurations in place. Returns the models whose configuration changed, `spade` first."""
    changed = []
    for name in ("spade", "spade_image"):
        source, target = folder / f"{name}.pbtxt", root / name / "config.pbtxt"
        if not target.exists() or target.read_bytes() != source.read_bytes():
            _put(source, target)
            changed.append(name)
    return changed


def _catch_up(root: Path, started: int | None) -> None:
    """Have the server, which was just announced, load the version that went live while the server started."""
    with _locked(root):
        number = live_number(root)
        if number == started:
            return
        try:
            for name in ("spade", "spade_image"):
                ask_server(root, name)
        except InferenceServerException as error:
            raise PublishError(
                f"[publish] expected the server to load version {number} of '{root}', published while it started, but "
                f"it refused: {refusal(error)}; roll back with `spade repository {root} --version {started}`"
            ) from None


def _put(source: Path, target: Path) -> None:
    """Copy a file over another in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda draft: shutil.copyfile(source, draft))


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One publisher at a time. The lock ends with the process."""
    if not root.is_dir():
        raise PublishError(f"[publish] expected a model repository but '{root}' is no folder; check the path")
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
