"""`spade studio`, the command: a server, and the page in the user's browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from served import wait_until

pytestmark = pytest.mark.xdist_group("chromium")


def test_the_command_opens_the_page_in_the_users_browser(tmp_path: Path, tiny_weights: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "serving.cli", "studio", "--weights", tiny_weights, "--port", "0"]
    with subprocess.Popen(command, env=os.environ | {"BROWSER": str(browser)}, stdout=subprocess.PIPE) as process:
        wait_until(lambda: opened.exists() or process.poll() is not None, "the browser")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(opened.read_text()) as page:
            assert b"<title>SPADE Studio</title>" in page.read()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"the studio is open at {opened.read_text()}" in output.decode()
