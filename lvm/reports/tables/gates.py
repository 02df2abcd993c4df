"""The table of gate results."""

from collections.abc import Sequence

from lvm.gates.result import GateResult
from lvm.reports.tables.table import Table

MARKS = {"ok": "pass", "warn": "WARN", "fail": "FAIL"}
"""How a severity is shown."""


def gate_table(gates: Sequence[GateResult], title: str = "Gates") -> Table:
    """Result, value, threshold and reason of each gate, and below a warning or failure its remedy."""
    rows = []
    for g in gates:
        rows.append([g.name, MARKS[g.severity], f"{g.value:.4g}", f"{g.threshold:.4g}", g.reason])
        rows += [["", "remedy", "", "", g.remedy]] if g.remedy else []
    return Table(title, ["gate", "result", "value", "threshold", "reason"], rows)
