# SPDX-License-Identifier: Apache-2.0
"""Runs the programs of `pio test` on a machine of QEMU: copy this file to the project's test folder.

    [env:...]
    test_framework = custom
    custom_qemu_machine = mps2-an500

A test is a folder `test/test_NAME` with a program whose `main` returns 0 where all is right; QEMU ends with that.
"""

import subprocess
import tempfile
from pathlib import Path

from platformio.public import TestCase, TestRunnerBase, TestStatus

SECONDS = 600


class CustomTestRunner(TestRunnerBase):
    """One case for each program."""

    def stage_building(self):
        """Here, whatever the platform: there is no board for which building waits."""
        if not self.options.without_building:
            self.run_project_targets(["__test"])

    def stage_uploading(self):
        """There is nothing to write to."""

    def stage_testing(self):
        """Passed where the program's status is 0."""
        if self.options.without_testing:
            return
        env = self.test_suite.env_name
        machine = self.project_config.get(f"env:{env}", "custom_qemu_machine")
        build = Path(self.project_config.get("platformio", "build_dir")) / env / self.test_suite.test_name
        found = sorted([*build.glob("firmware.elf"), *build.parent.glob("firmware.elf")])
        command = ["qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(found[0].resolve())]
        with tempfile.TemporaryDirectory() as folder:  # the emulated flash begins erased
            done = subprocess.run(command, cwd=folder, timeout=SECONDS, check=False, capture_output=True, text=True)
        status = TestStatus.PASSED if done.returncode == 0 else TestStatus.FAILED
        message = f"status {done.returncode} {done.stderr}".strip()
        print(message)
        self.test_suite.add_case(TestCase(name=self.test_suite.test_name, status=status, message=message))
