# SPDX-License-Identifier: Apache-2.0
"""The version of medyate: pyproject.toml has the same."""

VERSION = "0.1.0"
