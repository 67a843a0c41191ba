# SPDX-License-Identifier: Apache-2.0
"""The commands, one module each."""

from medyate.cli.commands import main

__all__ = ["main"]
