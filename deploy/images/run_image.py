"""Run an unpacked image as a cluster would, and check it: `python run_image.py ROOTFS CONFIG cpu|gpu`.

Needs root and util-linux. CONFIG is what `buildah inspect` says of the image: user, environment, entry point and health
check. The root is read-only, /tmp and /dev/shm are memory, the server is process 1 of its own
namespace. Prints the size by parts and the seconds from the start of the process to a ready server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PORTS = {"http": 18000, "grpc": 18001, "metrics": 18002}
USER = 10001
STARTS = 3

# A mount namespace of its own, so that every mount goes with the process.
MOUNTS = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mkdir -p proc dev tmp
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir -p dev/shm
mount -t tmpfs -o size=1g,mode=1777 tmpfs dev/shm
mount -t tmpfs -o size=256m,mode=1777 tmpfs tmp
mount -o remount,bind,ro "$1"
shift
exec "$@"
"""


@dataclass(frozen=True)
class Image:
    """An unpacked image.

    Attributes:
        root: its files.
        config: what it says of itself, as Docker's JSON names it.
    """

    root: Path
    config: dict[str, Any]


def command(image: Image, *arguments: str) -> list[str]:
    """`arguments` as the image runs them."""
    root, environment = str(image.root), image.config["Env"]
    inside = ["chroot", f"--userspec={image.config['User']}", root, "/usr/bin/env", "-i", *environment, *arguments]
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", MOUNTS, "sh", root, *inside]


def output(image: Image, *arguments: str) -> str:
    """What a command in the image prints. Raises CalledProcessError."""
    return subprocess.run(command(image, *arguments), check=True, capture_output=True, text=True).stdout.strip()


def processor_seconds() -> float:
    """What all processes of the image's user have computed."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.stat().st_uid == USER:
                ticks += sum(map(int, stat.read_text().rpartition(")")[2].split()[11:15]))  # with waited-for children
        except OSError:  # the process has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def start(image: Image) -> tuple[float, float, float]:
    """Start a server, draw an image, stop the server.

    Seconds until ready, processor seconds until then, and seconds until ended after SIGTERM.
    """
    ports = [f"--{name}-port={port}" for name, port in PORTS.items()]
    began = time.monotonic()
    server = subprocess.Popen(
        command(image, *image.config["Entrypoint"], "serve", "--host", "0.0.0.0", "--without-keys", *ports)
    )
    try:
        while not ready():
            if server.poll() is not None:
                sys.exit(f"error: expected a server but it ended with status {server.returncode}; its reason is above")
            if time.monotonic() - began > 300:
                sys.exit("error: expected a ready server within 300 s but it is not")
            time.sleep(0.02)
        seconds, computed = time.monotonic() - began, processor_seconds()
        check_health(image)
        draw(image)
        ended = time.monotonic()
        # unshare's child is the server: process 1 of its namespace, which gets signals it handles only.
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(children[0]), 15)
        if status := server.wait(60):
            sys.exit(f"error: expected the server to end with status 0 after SIGTERM but it ended with {status}")
        return seconds, computed, time.monotonic() - ended
    finally:
        server.kill()
        server.wait()


def ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS['http']}/readyz", timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def check_health(image: Image) -> None:
    """Run the image's health check, on the port of this server. Raises CalledProcessError."""
    _, *test = image.config["Healthcheck"]["Test"]
    subprocess.run(command(image, *(word.replace(":8000/", f":{PORTS['http']}/") for word in test)), check=True)


def draw(image: Image) -> None:
    """Have the server draw a map, by the image's own client and its own engine: the same file."""
    url = f"grpc://127.0.0.1:{PORTS['grpc']}"
    script = (
        "set -e; spade scenes --count 1 --out /tmp/s; cd /tmp/s; "
        f"spade synthesize labels --server {url} --seed 7 --out /tmp/a; "
        "spade synthesize labels --seed 7 --out /tmp/b; for f in /tmp/a/*.png; do cmp $f /tmp/b/${f##*/}; done"
    )
    subprocess.run(command(image, "sh", "-c", script), check=True, stdout=subprocess.DEVNULL)


def check(image: Image, kind: str) -> None:
    """What must hold in every image of a kind, `cpu` or `gpu`."""
    torch = output(image, "python3", "-c", "import importlib.util; print(bool(importlib.util.find_spec('torch')))")
    user = output(image, "id", "-u")
    write = output(image, "sh", "-c", "touch /opt/spade/x 2>/dev/null && echo written || echo refused")
    found = {"torch": torch, "user": user, "a write to the root": write}
    expected = {"torch": str(kind == "gpu"), "user": str(USER), "a write to the root": "refused"}
    if found != expected:
        sys.exit(f"error: expected {expected} but got {found}")


def check_gpu(image: Image) -> None:
    """CUDA kernels and PyCUDA are in the image, Triton is the base's, and what needs a GPU says that there is none."""
    script = (
        "from kernels.cuda.host.library import installed; from serving.triton.install import find_tritonserver; "
        "from importlib.metadata import version; "
        "print(installed().built, find_tritonserver().binary, bool(version('pycuda')))"
    )
    found = output(image, "python3", "-c", script)
    expected = "True /opt/tritonserver/bin/tritonserver True"
    if found != expected:
        sys.exit(f"error: expected '{expected}' but got '{found}'")
    serve = [*image.config["Entrypoint"], "serve", "--precision", "fp16", "--without-keys"]
    done = subprocess.run(command(image, *serve), check=False, capture_output=True, text=True, timeout=300)
    if done.returncode == 0 or "expected a CUDA device for precision fp16" not in done.stderr:
        sys.exit(f"error: expected a server that asks for a GPU but got status {done.returncode}: {done.stderr}")


def megabytes(path: Path) -> int:
    """Bytes of the files at or below a path, in millions, without following links."""
    files = [path] if path.is_file() else path.rglob("*")
    return round(sum(one.lstat().st_size for one in files if one.is_file() and not one.is_symlink()) / 1e6)


def parts(root: Path) -> list[tuple[str, int]]:
    """The size of the image, of Python's packages, and of the system, largest first."""
    site = next((root / "opt/spade/lib").glob("python3.*/site-packages"))
    sizes = {one.name: megabytes(one) for one in site.iterdir() if "dist-info" not in one.name}
    large = sorted(((name, size) for name, size in sizes.items() if size >= 2), key=lambda one: -one[1])
    total = megabytes(root)
    rest = megabytes(root / "opt") - sum(size for _, size in large)
    system = total - megabytes(root / "opt")
    return [("image", total), ("Debian and Python", system), *large, ("other packages", rest)]


def main() -> None:
    root, kind = Path(sys.argv[1]).resolve(), sys.argv[3]
    image = Image(root, json.loads(Path(sys.argv[2]).read_text())["Docker"]["config"])
    check(image, kind)
    if kind == "gpu":
        check_gpu(image)
    for name, size in parts(root):
        print(f"{size:5d} MB  {name}", flush=True)
    for _ in range(STARTS):
        up, computed, down = start(image)
        print(f"ready after {up:.1f} s ({computed:.1f} s computed), ended {down:.1f} s after SIGTERM", flush=True)


if __name__ == "__main__":
    main()
