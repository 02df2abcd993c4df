"""Colours that mean the same thing in every figure, and how a figure is written."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lvm.atomic_io import replacing

matplotlib.use("Agg")


COLOURS = {"lstm": "#1f77b4", "gru": "#2ca02c", "mamba2": "#d62728", "transformer": "#9467bd", "amn": "#ff7f0e"}


ENCODER, BASELINE = "black", "#888888"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, durably, and close it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def colour(name: str) -> str:
    """Colour of a model by its architecture."""
    return COLOURS.get(name, "#17becf")
