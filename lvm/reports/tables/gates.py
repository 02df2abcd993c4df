"""The table of gate results."""

from collections.abc import Sequence

from lvm.gates.result import GateResult
from lvm.reports.tables.table import Table

MARKS = {"ok": "pass", "warn": "WARN", "fail": "FAIL"}
"""Verdict of a gate by its severity."""


def gate_table(gates: Sequence[GateResult], title: str = "Gates") -> Table:
    """Verdict, value, threshold and reason of each gate; under one that did not simply pass, the remedy."""
    rows = []
    for g in gates:
        rows.append([g.name, MARKS[g.severity], f"{g.value:.4g}", f"{g.threshold:.4g}", g.reason])
        rows += [["", "remedy", "", "", g.remedy]] if g.remedy else []
    return Table(title, ["gate", "verdict", "value", "threshold", "reason"], rows)
