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
    """One sentence: what was found, in which documents, and the remedy."""

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def verdict(name: str, value: float, threshold: float, failed: bool, reason: str, warned: bool = False) -> GateResult:
    """Build a result from the two questions that a gate answers."""
    severity: Literal["ok", "warn", "fail"] = "fail" if failed else "warn" if warned else "ok"
    return GateResult(name, not failed, severity, float(value), float(threshold), reason)


def require(results: Sequence[GateResult]) -> None:
    """Raise `GateRefused`, with every reason, when a gate failed."""
    failures = [f"{r.name}: {r.reason}" for r in results if not r.passed]
    if failures:
        raise GateRefused("; ".join(failures))
