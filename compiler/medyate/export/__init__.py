# SPDX-License-Identifier: Apache-2.0
"""The IR to model files, one module per format: `write` for quantised networks, `write_real` for others."""

from __future__ import annotations

from medyate.errors import MedyateError


class ExportError(MedyateError):
    """The format has no operators that compute what the network computes."""
