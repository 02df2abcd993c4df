"""What a gate returns, and what happens when one refuses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lvm.errors import GateRefused


@dataclass(frozen=True)
class GateResult:
    """The verdict of one gate."""

    name: str
    passed: bool
    severity: Literal["ok", "warn", "fail"]
    """`warn` passes and is shown; `fail` stops the flow, bars the model from promotion, or makes decoding unavailable."""

    value: float
    """What was measured."""

    threshold: float
    """What it was held against."""

    reason: str
    """What was found, and in which documents."""

    remedy: str
    """What to do about it; "" where there is nothing to do."""

    @property
    def sentence(self) -> str:
        """Reason and remedy, for a log or a refusal."""
        return f"{self.reason}: {self.remedy}" if self.remedy else self.reason

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def gate_result(name: str, value: float, threshold: float, failed: bool, reason: str, remedy: str, warned: bool = False) -> GateResult:
    """Build a result from the two questions that a gate answers; the remedy is left out where both are answered with no."""
    severity: Literal["ok", "warn", "fail"] = "fail" if failed else "warn" if warned else "ok"
    return GateResult(name, not failed, severity, float(value), float(threshold), reason, remedy if failed or warned else "")


def require(results: Sequence[GateResult]) -> None:
    """Raise `GateRefused`, with every reason and remedy, when a gate failed."""
    failures = [f"{r.name}: {r.sentence}" for r in results if not r.passed]
    if failures:
        raise GateRefused("; ".join(failures))
