"""Named presets: settings that belong together, each a function that returns assignments such as `model.width=512`.

An assignment may be for one architecture: `lstm:loss.infonce=0.2`.
"""

from collections.abc import Callable

from lvm.errors import InputError

Preset = Callable[[], list[str]]

PRESETS: dict[str, Preset] = {}
"""By name. A preset's docstring says what it is for."""


def preset(make: Preset) -> Preset:
    """Decorator that adds a preset under the function's name."""
    PRESETS[make.__name__] = make
    return make


def preset_assignments(name: str) -> list[str]:
    """The assignments of a preset; `InputError` names the presets there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is not known: there are {', '.join(PRESETS)}")
    return PRESETS[name]()


@preset
def demo() -> list[str]:
    """What `make demo` trains with: few epochs, for minutes on two CPU cores."""
    return ["epochs=6"]


@preset
def quality() -> list[str]:
    """What the figures of docs/results.md were made with: width 1024, for a GPU. bench/quality/LOG.md says what else was tried."""
    common = ["context_length=16", "sampler.length=128", "sampler.stretches=64", "model.lags=32", "model.width=1024", "epochs=12"]
    return [*common, "transformer:model.layers=2", "transformer:learning_rate=0.0005"]


@preset
def legacy() -> list[str]:
    """The broken original, to be compared with: one linear head of unit length, trained on the squared error alone."""
    off = ["regression", "norm", "infonce", "moments", "variance"]
    return ["model.heads=legacy", "loss.mse=1", *(f"loss.{term}=0" for term in off)]
