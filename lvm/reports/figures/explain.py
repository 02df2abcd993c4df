"""Figure of `lvm explain`: what is lost without the chunk at each lag."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lvm.reports.figures.style import BASELINE, colour


def lag_figure(found: Mapping[str, Any]) -> Figure:
    """Loss without the chunk at each lag, of the model and of the strongest baseline; `found` is a result of `explain`."""
    baselines = found["rivals"]
    figure, axes = plt.subplots(1, len(baselines), figsize=(11, 3.8))
    lags = {int(name.removeprefix("lag ")): each for name, each in found["ablations"].items() if name.startswith("lag ")}
    for axis, (metric, baseline) in zip(axes, baselines.items(), strict=True):
        for whose, label, c in (("model", found["model"], colour(found["arch"])), ("baseline", baseline, BASELINE)):
            drops = [each[metric][whose] for each in lags.values()]
            bounds = [[d["value"] if d[end] is None else d[end] for d in drops] for end in ("low", "high")]
            axis.vlines(list(lags), *bounds, color=c, linewidth=3, alpha=0.5)
            axis.plot(list(lags), [d["value"] for d in drops], "o-", color=c, label=label)
        axis.axhline(0, color=BASELINE, linewidth=1)
        axis.set_xlabel("lag of the removed chunk")
        axis.set_ylabel(f"loss of {metric}")
        axis.legend()
    figure.suptitle(f"What a context of {found['context_length']} loses, {found['split']} documents, 95 % intervals")
    return figure
