"""Colours that mean the same thing in every figure, and how a figure is written."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lvm.atomic_io import replacing
from lvm.config import ARCHITECTURES

matplotlib.use("Agg")


PALETTE = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#bcbd22", "#393b79", "#637939")
"""Colours of the architectures, in the order of their registry; an eleventh starts over."""


ENCODER, BASELINE, OTHER = "black", "#888888", "#17becf"
"""Colours of the encoder's own vectors, of baselines, and of what is not a single architecture's."""


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, durably, and close it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def colour(name: str) -> str:
    """Colour of an architecture; `OTHER` if there is none of this name."""
    names = ARCHITECTURES.names()
    return PALETTE[names.index(name) % len(PALETTE)] if name in names else OTHER
