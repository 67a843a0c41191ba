# SPDX-License-Identifier: Apache-2.0
"""A terminal line between a host and a program: bytes come late or wrong, power fails, the plug is out."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import select
import subprocess
import threading
import time
import tty
from collections import deque
from pathlib import Path

import numpy as np

POLL_SECONDS = 0.05


class Line:
    """A pty whose other end is the host twin of a board; `port` is the option's value for --on."""

    def __init__(
        self,
        program: Path,
        flash: Path,
        bad: float = 0.0,
        delay: float = 0.0,
        seed: int = 0,
        restarts: tuple[int, ...] = (),
        banner: bytes = b"",
    ) -> None:
        """What is wrong with the line.

        `bad`: share of bytes that arrive as others. `delay`: seconds, each way. `restarts`: after how many bytes
        towards the program it is killed and started anew; `banner`: what it prints then.
        """
        self.ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self.name = os.ttyname(self._theirs)
        self.port = f"serial:{self.name}"
        self.bad = bad
        self.delay = delay
        self.damaged = 0
        self.carried = 0
        """Bytes towards the program."""
        self.restarted = 0
        self._random = np.random.default_rng(seed)
        self._program, self._environment = program, {**os.environ, "MDY_FLASH_FILE": str(flash)}
        self._restarts = deque(restarts)
        self._banner = banner
        self._late: deque[tuple[float, int, bytes]] = deque()
        self._ends = threading.Event()
        self.process = self._start()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        self._stop()

    def unplug(self) -> None:
        """The host's port is gone."""
        self._ends.set()
        self._thread.join()
        for end in (self._theirs, self.ours):
            with contextlib.suppress(OSError):  # a second time
                os.close(end)

    def restart(self) -> None:
        """The program is killed at the next byte, and started anew."""
        self._restarts.append(0)

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([self._program], stdin=pipe, stdout=pipe, env=self._environment, bufsize=0)

    def _stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _carry(self) -> None:
        try:
            while not self._ends.is_set():
                assert self.process.stdin is not None and self.process.stdout is not None
                down, up = self.process.stdin.fileno(), self.process.stdout.fileno()
                wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else POLL_SECONDS
                ready, _, _ = select.select([self.ours, up], [], [], min(wait, POLL_SECONDS))
                if self.ours in ready:
                    data = os.read(self.ours, 4096)
                    self.carried += len(data)
                    self._late.append((time.monotonic() + self.delay, down, self._disturb(data)))
                if up in ready:
                    data = os.read(up, 4096)
                    if not data:
                        return  # it ended by itself
                    self._late.append((time.monotonic() + self.delay, self.ours, self._disturb(data)))
                while self._late and self._late[0][0] <= time.monotonic():
                    _, end, data = self._late.popleft()
                    os.write(end, data)
                if self._restarts and self.carried >= self._restarts[0]:
                    self._restarts.popleft()
                    self._restart()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO):
                raise

    def _restart(self) -> None:
        self.process.kill()
        self._stop()
        self._late.clear()
        self.process = self._start()
        self.restarted += 1
        if self._banner:
            os.write(self.ours, self._banner)

    def _disturb(self, data: bytes) -> bytes:
        if not self.bad:
            return data
        values = np.frombuffer(data, np.uint8).copy()
        hit = self._random.random(len(values)) < self.bad
        values[hit] ^= self._random.integers(1, 256, int(hit.sum()), np.uint8)
        self.damaged += int(hit.sum())
        return values.tobytes()
