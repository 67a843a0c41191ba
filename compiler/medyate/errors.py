# SPDX-License-Identifier: Apache-2.0
"""Every error that medyate raises on purpose: when, and what the user can do about it."""

from __future__ import annotations


class MedyateError(Exception):
    """Base of all errors below: a sentence on what is wrong and one on what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy


class ModelError(MedyateError):
    """The model file cannot be read, or holds something that no importer accepts."""


class UnsupportedOpError(ModelError):
    """A node's operation, or one of its attributes, has no kernel."""

    def __init__(self, node: str, op: str, why: str, supported: tuple[str, ...]) -> None:
        known = op in supported
        remedy = (
            "docs/ops.md says in which forms it is supported." if known else f"Supported here: {', '.join(supported)}."
        )
        super().__init__(f"node '{node}' ({op}): {why}.", remedy)
        self.node = node
        self.op = op
        self.why = why
        self.supported = supported


class GraphError(MedyateError):
    """A graph breaks a rule that every stage relies on; raised by the verifier between stages."""


class DataError(MedyateError):
    """The samples cannot be read or do not fit the model."""


class BudgetError(MedyateError):
    """The network cannot be trained inside the memory that was given."""


class ToolchainError(MedyateError):
    """A compiler, emulator or package that the command needs is missing or fails."""


class LinkError(MedyateError):
    """The target does not answer, or refuses a request."""


class ArtefactError(MedyateError):
    """A stage's file is missing, damaged or of another version; or it cannot be written."""


class PlanError(MedyateError):
    """A memory plan that does not carry its steps: never the user's fault."""

    def __init__(self, what: str) -> None:
        remedy = "This is a fault of medyate; please report it with the network."
        super().__init__(f"the memory plan is wrong: {what}.", remedy)
