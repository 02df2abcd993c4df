"""The result of a gate, and the refusal when one fails."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lvm.errors import GateRefused

Severity = Literal["ok", "warn", "fail"]
"""`warn` passes and is shown as a warning; `fail` stops the flow, bars the model from promotion, or makes decoding unavailable."""


@dataclass(frozen=True)
class GateResult:
    """The result of one gate."""

    name: str
    passed: bool
    """Whether the severity is `ok` or `warn`."""

    severity: Severity
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
    severity: Severity = "fail" if failed else "warn" if warned else "ok"
    return GateResult(name, not failed, severity, float(value), float(threshold), reason, remedy if failed or warned else "")


def worst(results: Iterable[GateResult]) -> Severity:
    """The worst severity of any result; `ok` when there are none."""
    found = {result.severity for result in results}
    return "fail" if "fail" in found else "warn" if "warn" in found else "ok"


def verdict(results: Sequence[GateResult]) -> str:
    """All results in a few words: 'pass' only where every gate is ok, else 'pass with warnings: NAMES' or 'FAIL: NAMES'."""
    warned, failed = ([r.name for r in results if r.severity == severity] for severity in ("warn", "fail"))
    if failed:
        return f"FAIL: {', '.join(failed)}" + (f"; warnings: {', '.join(warned)}" if warned else "")
    return f"pass with warnings: {', '.join(warned)}" if warned else "pass"


def require(results: Sequence[GateResult]) -> None:
    """Raise `GateRefused`, with the reason and the remedy of every failed gate, if there is one."""
    failures = [f"{r.name}: {r.sentence}" for r in results if not r.passed]
    if failures:
        raise GateRefused("; ".join(failures))
