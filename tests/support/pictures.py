"""What every figure must be."""

import struct
from pathlib import Path

import matplotlib.image


def assert_picture(file: Path) -> None:
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-12:] == b"\x00\x00\x00\x00IEND\xaeB`\x82"
    width, height = struct.unpack(">II", content[16:24])
    assert 400 <= width <= 2000 and 200 <= height <= 1500, (width, height)
    assert 5_000 < len(content) < 1_000_000
    pixels = matplotlib.image.imread(file)[..., :3]
    assert 0.5 < (pixels.min(axis=-1) > 0.99).mean() < 0.99, "mostly white, and not only"
