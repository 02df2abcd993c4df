"""Figure of decoded text, by length."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lvm.reports.figures.style import BASELINE, ENCODER, OTHER


def decode_figure(summary: Mapping[str, Any]) -> Figure:
    """Quality of text by length of the true next chunk: the ceiling, the decoded prediction, the nearest real chunk.

    `summary` is a `DecodedWindows.summary()`. The gap between ceiling and prediction is due to the model.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    arms = {"A: ceiling": ("A", ENCODER), "C: prediction": ("C", OTHER), "nearest real chunk": ("nearest", BASELINE)}
    for axis, (metric, title) in zip(axes, (("bleu", "BLEU"), ("token_f1", "token F1"), ("roundtrip_cosine", "round trip")), strict=True):
        for label, (arm, c) in arms.items():
            lengths = summary["arms"][arm]["by_length"]
            values = [bucket.get(metric, np.nan) for bucket in lengths.values()]  # the real chunk is not decoded and has no round trip
            axis.plot(list(lengths), values, "o-", color=c, label=label)
        axis.set_title(title)
        axis.set_xlabel("tokens of the true next chunk")
        axis.set_ylim(bottom=0)
    axes[0].legend()
    figure.tight_layout()
    return figure
