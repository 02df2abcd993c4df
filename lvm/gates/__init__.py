"""Gates: functions that check data or a model, and fail where every later number would be misleading.

Each is one function in the registry `GATES`, see `lvm.gates.stages`. The gates on decoders are in `lvm.decoding.gates`.
"""

# Gates register themselves when they are imported, in the order in which they run and reports list them.
# isort: off
from lvm.gates import data, model, nightly

# isort: on

__all__ = ["data", "model", "nightly"]
