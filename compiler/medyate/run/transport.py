# SPDX-License-Identifier: Apache-2.0
"""Programs to talk to: the host build over a pipe, QEMU over named pipes, a board over a serial port."""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import tempfile
import termios
from pathlib import Path
from types import TracebackType

from medyate.boards import MACHINES
from medyate.build.compile import APT, require
from medyate.errors import LinkError, ToolchainError

EXIT_SECONDS = 10
WRITE_SECONDS = 120.0
"""For a target that does not read: it may be at work."""
POLL_SECONDS = 0.1
BAUD = 115200
BITS_PER_BYTE = 10


def emulator() -> str:
    """Its path. Raises ToolchainError when it is not installed."""
    return require("qemu-system-arm", APT)


class _Pipes:
    """Reads and writes two file descriptors of a child process."""

    buffered = True
    bytes_per_second = math.inf

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.input = -1
        self.output = -1

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Sends all bytes."""
        try:
            os.set_blocking(self.input, False)
            while data:
                if not select.select([], [self.input], [], WRITE_SECONDS)[1]:
                    raise LinkError(f"the target read nothing for {WRITE_SECONDS:g} s.", "Look at its program.")
                data = data[os.write(self.input, data) :]
        except OSError as error:
            raise self._gone() from error

    def read(self, timeout: float) -> bytes:
        """What has arrived."""
        ready, _, _ = select.select([self.output], [], [], timeout)
        if not ready:
            return b""
        data = os.read(self.output, 4096)
        if not data:
            raise self._gone()
        return data

    def _gone(self) -> LinkError:
        status: int | None = None
        if self.process is not None:
            try:
                status = self.process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                status = None
        return LinkError(
            f"the target's program ended (status {status}).", "Run it again; its flash keeps the last commit."
        )

    def close(self) -> None:
        """Closes the link and waits for the program."""
        for descriptor in (self.input, self.output):
            if descriptor >= 0:
                with contextlib.suppress(OSError):  # already closed with the process
                    os.close(descriptor)
        self.input = self.output = -1
        if self.process is not None:
            try:
                self.process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class HostProgram(_Pipes):
    """The native build."""

    def __init__(self, program: Path, flash: Path) -> None:
        super().__init__()
        environment = {**os.environ, "MDY_FLASH_FILE": str(flash)}
        try:
            self.process = subprocess.Popen(
                [str(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for this program; the target ends when its link closes
            )
        except OSError as error:
            raise ToolchainError(
                f"'{program}' cannot be started: {error.strerror}.", "Run `medyate compile` again."
            ) from error
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input = os.dup(self.process.stdin.fileno())
        self.output = os.dup(self.process.stdout.fileno())
        self.process.stdin.close()
        self.process.stdout.close()


class QemuProgram(_Pipes):
    """An emulated board; its link is a pair of named pipes, its flash a file."""

    def __init__(self, image: Path, target: str, flash: Path, *, count_instructions: bool, plugin: str = "") -> None:
        """`plugin`: with its arguments, as QEMU's -plugin takes it."""
        super().__init__()
        qemu = emulator()
        self._folder = tempfile.TemporaryDirectory(prefix="medyate-")
        self.folder = folder = Path(self._folder.name)
        """Of the pipes, and of a link to the flash."""
        (folder / "flash.bin").symlink_to(flash.absolute())  # written through: a kill of this program loses no commit
        os.mkfifo(folder / "link.in")
        os.mkfifo(folder / "link.out")
        command = [qemu, "-M", MACHINES[target], "-display", "none", "-monitor", "none", "-serial", "none"]
        if count_instructions:
            command += ["-icount", "shift=0"]
        command += ["-plugin", plugin] if plugin else []
        command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image.resolve())]
        # Both ends are opened for reading and writing, so that neither open waits for the other.
        keep_in = os.open(folder / "link.in", os.O_RDWR)
        keep_out = os.open(folder / "link.out", os.O_RDWR)
        self.input = os.open(folder / "link.in", os.O_WRONLY)
        self.output = os.open(folder / "link.out", os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self.output, True)
        self._errors = (folder / "qemu.log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,
        )
        self._keep = [keep_in, keep_out]

    def read(self, timeout: float) -> bytes:
        """What has arrived; a dead emulator is noticed while waiting."""
        waited = 0.0
        while waited < timeout:
            ready, _, _ = select.select([self.output], [], [], min(POLL_SECONDS, timeout - waited))
            if ready:
                return os.read(self.output, 4096)
            assert self.process is not None
            if self.process.poll() is not None:
                log = (self.folder / "qemu.log").read_text(errors="replace").strip()
                raise LinkError(
                    f"QEMU ended with status {self.process.returncode} {log[-200:]}".strip() + ".",
                    "64 + n is exception n on the target; 67 a stack overflow or fault.",
                )
            waited += POLL_SECONDS
        return b""

    def close(self) -> None:
        """Ends the emulator."""
        for descriptor in self._keep:
            os.close(descriptor)
        self._keep = []
        super().close()
        self._errors.close()
        self._folder.cleanup()


class SerialPort:
    """A board on a serial port, which no other program may have open."""

    buffered = False

    def __init__(self, port: str, baud: int = BAUD) -> None:
        """Raises LinkError when it cannot be opened, or is in use."""
        import serial

        self.bytes_per_second = baud / BITS_PER_BYTE
        self._name = port
        try:
            self._port = serial.Serial(port, baud, timeout=0, write_timeout=EXIT_SECONDS, exclusive=True)
        except (OSError, ValueError, OverflowError, termios.error) as error:  # a SerialException is an OSError
            if "exclusively lock" in str(error):
                raise LinkError(f"'{port}' is in use by another program.", "Let it end first.") from error
            raise LinkError(f"'{port}' cannot be opened: {error}.", "Check the port's name and rights.") from error

    def __enter__(self) -> SerialPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Sends all bytes. Raises LinkError when the port is gone, or takes nothing."""
        piece = max(1, int(self.bytes_per_second))  # a second's worth: the time limit is of one write
        try:
            for at in range(0, len(data), piece):
                self._port.write(data[at : at + piece])
        except (OSError, TypeError, termios.error) as error:
            raise self._gone(error) from error

    def read(self, timeout: float) -> bytes:
        """What has arrived. Raises LinkError when the port is gone."""
        try:
            if not select.select([self._port.fileno()], [], [], timeout)[0]:
                return b""
            received: bytes = self._port.read(max(1, self._port.in_waiting))
        except (OSError, TypeError, ValueError, termios.error) as error:  # TypeError: closed meanwhile
            raise self._gone(error) from error
        return received

    def _gone(self, error: Exception) -> LinkError:
        return LinkError(
            f"the serial port '{self._name}' is gone: {error}.",
            "Plug the board in again; `medyate run --resume` goes on from its last commit.",
        )

    def close(self) -> None:
        """Closes the port."""
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self._port.close()
