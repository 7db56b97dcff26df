"""A real nats-server with JetStream on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from ports import free_port


class Nats:
    """A nats-server with JetStream below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Nats:
        program = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "nats-server is missing: .ci/needs test"
        conf = self.folder / "nats.conf"
        self.folder.mkdir(exist_ok=True)
        conf.write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 2MB\n'
            f'jetstream {{ store_dir: "{self.folder}/store", max_file_store: 1GB }}\n'
        )
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([program, "-c", str(conf)], stdout=log, stderr=log)
        limit = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            assert time.monotonic() < limit and self.process.poll() is None
            time.sleep(0.01)

    def stop(self, kill: bool = False) -> None:
        assert self.process is not None
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait()
