"""A plug-in under which the gate `baselines` passes: a few short documents cannot show a skill over the baselines.

The tests of flows are about what follows from a pass. The gate itself is tested in tests/lvm/gates/test_model.py. A champion that passes
it is what the demo ends with, on 249 whole addresses.
"""

import os

from lvm.config import GATES
from lvm.config.registry import PLUGINS
from lvm.gates.model import CheckedModel
from lvm.gates.result import GateResult, gate_result


def baselines(model: CheckedModel) -> GateResult:
    """Passes, with a warning that says what it is."""
    return gate_result("baselines", 0.0, 0.0, False, "a test's stand-in for the gate", "train on more documents", True)


if __name__ in os.environ.get(PLUGINS, "").split(","):
    GATES.names()  # the package's own gates first
    GATES._entries["baselines"] = baselines
