# SPDX-License-Identifier: Apache-2.0
"""What is counted, by the names that results have for it."""

from __future__ import annotations

INFERENCE, TRAINING_STEP, COMMIT = PHASES = ("inference", "training_step", "commit")
