"""What MLflow is told, no longer than its database takes. What is cut is counted, and stands whole in the manifest or in a file.

A corpus may have a source name a document, and a flow a list of thousands of files. MLflow refuses such values, or cuts them
without a word.
"""

import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Param

from lvm.data.names import first_names

PARAM, TEXT = 6_000, 5_000
"""Characters in a parameter, and in a tag or a description."""

RUN_NAME = 250
"""Characters in the name of a run."""

LISTED = 4_000
"""Characters of a list of names; JSON may write a character in twelve."""

PARAMS = 100
"""Parameters in one call."""


def shortened(text: str, most: int) -> str:
    """`text` in at most `most` characters. Where some are left out, it ends in their number."""
    if len(text) <= most:
        return text
    kept = most - 40
    return f"{text[:kept]}… and {len(text) - kept:,} more characters"


def as_params(values: Mapping[str, Any]) -> list[Param]:
    """Nested settings as parameters of a run."""
    return [Param(name, shortened(str(value), PARAM)) for name, value in flatten(values).items()]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names: {"model": {"width": 1}} becomes {"model.width": 1}.

    A mapping whose keys are no settings, such as names of sources, becomes one JSON value: MLflow takes few characters in a name.
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and all(str(key).isidentifier() for key in value):
            out |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            out[prefix + name] = json.dumps(value, default=str)
        elif isinstance(value, list | tuple):
            out[prefix + name] = _as_json(value)
        else:
            out[prefix + name] = value
    return out


def _as_json(values: list[Any] | tuple[Any, ...]) -> str:
    """A list as JSON; of a long one, its first entries as text and the number of the others."""
    whole = json.dumps(values, default=str)
    return whole if len(whole) <= PARAM else json.dumps(first_names([str(value) for value in values], LISTED))
