"""The controller's end of the channel of process/replicas.py, and the master's turns meanwhile."""

from __future__ import annotations

import array
import json
import os
import time

from proxy.process.replicas import Replicas


class Controller:
    """The controller's end of the channel, and the master's turn when it is waited for."""

    def __init__(self, replicas: Replicas) -> None:
        self.replicas = replicas
        self.sock = replicas.new_channel()
        self.sock.setblocking(False)
        self.fds: list[int] = []

    def order(self, **words) -> None:
        self.sock.send(json.dumps(words).encode() + b"\n")

    def hear(self, op: str) -> dict:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            self.replicas.on_channel()
            self.replicas.on_watch()
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid:
                self.replicas.on_exit(pid, status)
            try:
                data, ancillary, _, _ = self.sock.recvmsg(1 << 16, 1024)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            for _, _, raw in ancillary:
                fds = array.array("i")
                fds.frombytes(raw)
                self.fds += fds
            message = json.loads(data)
            if message["op"] == op:
                return message
        raise AssertionError(f"no {op}")
