"""A real browser, Debian's chromium: it opens one page, and its scripts tell the gateway's log."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


@contextlib.contextmanager
def browsing(folder: Path, url: str, *flags: str) -> Iterator[None]:
    """While the browser looks at url; its profile and what it says are in the folder."""
    browser = shutil.which("chromium")
    assert browser, "the tests need Debian's chromium"
    with open(folder / "browser.log", "wb") as said:
        process = subprocess.Popen(
            [browser, *FLAGS, *flags, f"--user-data-dir={folder}/profile", url],
            stdout=said, stderr=said)  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)
