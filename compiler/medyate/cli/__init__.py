# SPDX-License-Identifier: Apache-2.0
"""The commands, one module each."""

from medyate.cli.app import app, main

__all__ = ["app", "main"]
