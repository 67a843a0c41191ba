# SPDX-License-Identifier: Apache-2.0
"""What a compiled network takes on an emulated core: instructions, layer by layer. They are not cycles."""
