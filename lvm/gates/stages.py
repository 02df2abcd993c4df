"""The registered gates, by the stage that runs them.

A gate is a function that is registered under the name of its result::

    @GATES.register("short_outputs", stage="model")
    def short_outputs(model: CheckedModel) -> GateResult: ...

Stages and what their gates are given:

- `data`: the dataset, the thresholds and the device, as `(Dataset, GateThresholds, torch.device)`. Run before any training.
- `model`: a `CheckedModel`. Run on every trained model and on the current champion.
- `nightly`: a `CheckedNight`. Run every night; with `new_documents=True` only if the night has documents that the champion never saw.

`nightly=True` runs a gate of data or of a model in the nightly validation too. `early=function` gives a gate of a model a check that
already runs during training, on a `CheckedTraining`; it returns None while it cannot tell yet.
"""

from collections.abc import Callable
from typing import Any, Literal

from lvm.config import GATES

Stage = Literal["data", "model", "nightly"]


def stage_gates(stage: Stage, **about: bool) -> dict[str, Callable[..., Any]]:
    """The gates of a stage by name, in the order of their registration; with `about`, those registered with these facts.

    Raises `ValueError` when a gate was registered without a stage.
    """
    found = {}
    for name, gate in GATES.items():
        facts = GATES.about(name)
        if facts.get("stage") not in ("data", "model", "nightly"):
            raise ValueError(f'gate {name!r} is registered without a stage: give stage="data", "model" or "nightly"')
        if facts["stage"] == stage and all(facts.get(fact, False) == value for fact, value in about.items()):
            found[name] = gate
    return found
