# SPDX-License-Identifier: Apache-2.0
"""Makes a UF2 file, which a board's boot loader takes like a file on a USB stick. Needs Python alone.

Format: https://github.com/microsoft/uf2: blocks of 512 bytes, each with 256 bytes of the image and their address.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
FAMILY_PRESENT = 0x00002000
PAYLOAD = 256
FIELD = 476
"""Bytes of a block that could hold data."""


def uf2(image: bytes, address: int, family: int) -> bytes:
    """The file of an image that begins at `address`; the last block is filled with 0xFF, as erased flash is."""
    count = -(-len(image) // PAYLOAD)
    blocks = []
    for number in range(count):
        part = image[number * PAYLOAD : (number + 1) * PAYLOAD].ljust(PAYLOAD, b"\xff")
        fields = (FAMILY_PRESENT, address + number * PAYLOAD, PAYLOAD, number, count, family)
        blocks.append(struct.pack("<8I", *MAGIC[:2], *fields) + part.ljust(FIELD, b"\0") + struct.pack("<I", MAGIC[2]))
    return b"".join(blocks)


if __name__ == "__main__":
    source, target, at, number = sys.argv[1:]
    Path(target).write_bytes(uf2(Path(source).read_bytes(), int(at, 0), int(number, 0)))
