# SPDX-License-Identifier: Apache-2.0
"""Emulated microcontrollers that run a board's own image; README.md says what is modelled."""
