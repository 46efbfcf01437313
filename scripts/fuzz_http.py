"""Try every call of a running server's OpenAPI with made-up requests.

    python scripts/fuzz_http.py http://127.0.0.1:8000 1000

Schemathesis makes requests that fit the description and requests that do not, and checks every answer with all its
checks: no server error, only described statuses, types, headers and bodies, wrong requests refused, right ones taken.
Exit status: 0 without a finding, 1 with findings, which are printed with a `curl` command each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HOOKS = "label_map_strategies"


def fuzz(url: str, cases: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Schemathesis with `cases` requests for each call and kind of request."""
    scripts = Path(__file__).parent
    command = [
        str(Path(sys.executable).parent / "schemathesis"), f"--config-file={scripts / 'schemathesis.toml'}",
        "run", f"{url}/openapi.json",
        f"--max-examples={cases}", "--checks=all", "--phases=examples,coverage,fuzzing", "--request-timeout=60",
        "--suppress-health-check=all", "--no-color", "--continue-on-failure", *options,
    ]  # fmt: skip
    environment = os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(scripts)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the gateway's address")
    parser.add_argument("cases", nargs="?", type=int, default=1000, help="of each call and kind (default 1000)")
    options = parser.parse_args()
    done = fuzz(options.url, options.cases)
    print(done.stdout, done.stderr, sep="\n")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
