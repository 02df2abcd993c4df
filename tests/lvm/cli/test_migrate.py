"""`lvm migrate`: what it did for people and programs, and the sentences of what it refuses."""

from pathlib import Path

from tests.support.commands import lvm, refusal
from tests.support.older_versions import TABLE, copied


def test_migrate_says_what_it_did_where_the_old_model_is_and_the_second_time_that_nothing_is_to_do(tmp_path: Path) -> None:
    data, model = copied(TABLE, tmp_path), copied("085d1e9/legacy", tmp_path)
    assert f"dataset {data}: manifest.json holds the digest of its fields\n" in lvm("migrate", data, "--device", "cpu").out
    value = lvm("migrate", model, "--dataset", data, "--device", "cpu", "--json").json
    assert (value["path"], value["kind"], value["kept"]) == (str(model), "model", f"{model}.format-5")
    again = lvm("migrate", model, "--device", "cpu")
    assert (again.code, again.out) == (0, f"model {model}: of the present format already, and verified\n")


def test_model_without_its_dataset_is_refused_in_one_sentence(tmp_path: Path) -> None:
    model = copied("085d1e9/legacy", tmp_path)
    assert "give --dataset" in refusal(lvm("migrate", model, "--device", "cpu"))
