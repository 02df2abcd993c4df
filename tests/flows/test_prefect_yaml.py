"""The deployments as the file lists them: what Prefect's form shows of each flow."""

from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from lvm.config import ARCHITECTURES

CHECKOUT = Path(__file__).parents[2]
LISTED = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
ENTRYPOINTS = {found["entrypoint"]: found["name"] for found in LISTED}


def parameters(entrypoint: str) -> dict[str, dict]:
    return parameter_schema(load_flow_from_entrypoint(str(CHECKOUT / entrypoint))).properties


def test_each_flow_is_deployed_once():
    flows = {f"flows/{file.name}" for file in (CHECKOUT / "flows").glob("*.py") if "@flow" in file.read_text(encoding="utf-8")}
    assert sorted(entrypoint.partition(":")[0] for entrypoint in ENTRYPOINTS) == sorted(flows)
    assert len(LISTED) == len(ENTRYPOINTS)


@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_each_parameter_has_a_type_a_default_and_a_description(entrypoint):
    found = parameters(entrypoint)
    assert found
    for name, schema in found.items():
        assert schema.get("type") or schema.get("anyOf") or schema.get("$ref"), name
        assert "default" in schema, name
        assert schema.get("description"), name


def test_form_offers_the_architectures_that_there_are():
    schema = parameters("flows/retrain_all.py:retrain_all")["architectures"]
    assert schema["items"]["enum"] == ARCHITECTURES.names()
