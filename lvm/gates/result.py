"""The result of a gate, and the refusal when one fails."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lvm.errors import GateRefused


@dataclass(frozen=True)
class GateResult:
    """The result of one gate."""

    name: str
    passed: bool
    severity: Literal["ok", "warn", "fail"]
    """`warn` passes and is shown; `fail` stops the flow, bars the model from promotion, or makes decoding unavailable."""

    value: float
    """What the gate compares with the threshold."""

    threshold: float
    """The bound; whether the value has to be above or below it is in the gate's docstring."""

    reason: str
    """What was found, and in which documents."""

    remedy: str
    """What the user can do about it; empty for a gate that is ok."""

    @property
    def sentence(self) -> str:
        """Reason and remedy, for a log or a refusal."""
        return f"{self.reason}: {self.remedy}" if self.remedy else self.reason

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def gate_result(name: str, value: float, threshold: float, failed: bool, reason: str, remedy: str, warned: bool = False) -> GateResult:
    """Build a result. Severity follows from `failed` and `warned`; the remedy is left out where neither holds."""
    severity: Literal["ok", "warn", "fail"] = "fail" if failed else "warn" if warned else "ok"
    return GateResult(name, not failed, severity, float(value), float(threshold), reason, remedy if failed or warned else "")


def require(results: Sequence[GateResult]) -> None:
    """Raise `GateRefused`, with the reason and the remedy of every failed gate, if there is one."""
    failures = [f"{r.name}: {r.sentence}" for r in results if not r.passed]
    if failures:
        raise GateRefused("; ".join(failures))
