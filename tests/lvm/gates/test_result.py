"""What gates say together: a pass only where every one is ok, and a warning never as a pass."""

import pytest

from lvm.gates.result import GateResult, gate_result, verdict, worst


def gate(name: str, severity: str) -> GateResult:
    return gate_result(name, 0, 0, severity == "fail", "found", "do this", severity == "warn")


@pytest.mark.parametrize(
    ("severities", "said", "least"),
    [
        ([], "pass", "ok"),
        (["ok", "ok"], "pass", "ok"),
        (["ok", "warn"], "pass with warnings: g1", "warn"),
        (["warn", "warn"], "pass with warnings: g0, g1", "warn"),
        (["ok", "fail"], "FAIL: g1", "fail"),
        (["warn", "fail"], "FAIL: g1; warnings: g0", "fail"),
    ],
)
def test_a_verdict_names_every_warning_and_failure(severities: list[str], said: str, least: str) -> None:
    results = [gate(f"g{number}", severity) for number, severity in enumerate(severities)]
    assert (verdict(results), worst(results)) == (said, least)
