"""Gates on a dataset, before any training; a file each.

They read stored texts, vectors and keys only, so they see what was stored and not what was meant.
How often each sees what is wrong, and refuses what is right, is measured by `bench/gates`.
"""

import torch

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset

# Gates register themselves when they are imported, in the order in which they run and reports list them.
# isort: off
from lvm.gates.data import chunk_order, split_leakage, duplicates, readable, pairing

# isort: on
from lvm.gates.data.rows import CPU
from lvm.gates.result import GateResult
from lvm.gates.stages import stage_gates

__all__ = ["chunk_order", "data_gates", "duplicates", "pairing", "readable", "split_leakage"]


def data_gates(dataset: Dataset, limits: GateThresholds, device: torch.device = CPU) -> list[GateResult]:
    """Every gate on a dataset, in their order."""
    return [gate(dataset, limits, device) for gate in stage_gates("data").values()]
