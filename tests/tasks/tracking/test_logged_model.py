"""A checkpoint in MLflow: an output of its run, at its best step, with what was measured on it and no second copy of its files."""

import pytest
from mlflow import MlflowClient

from lvm.errors import InputError
from lvm.models.checkpoint import read_config
from tasks.tracking.logged_model import log_checkpoint, log_model_metrics
from tasks.tracking.runs import child_run, parent_run
from tests.support.trainings import trained


@pytest.fixture(scope="module")
def folder(dataset):
    return trained(dataset)


@pytest.fixture(scope="module")
def logged(workspace, dataset, folder):
    """A run and its LoggedModel."""
    config = read_config(folder)
    with parent_run(workspace, "parent", {}, {}) as parent:
        run = child_run(parent, "lstm", {}, {}, dataset.manifest)
        model = log_checkpoint(run, folder, config)
        log_model_metrics(run, model, {"val/cosine": 0.5, "test/cosine": 0.25}, 9, dataset.manifest)
        MlflowClient().set_terminated(run, "FINISHED")
    return run, MlflowClient().get_logged_model(model)


def test_checkpoint_is_an_output_of_its_run_at_the_step_of_its_best_epoch(logged, folder):
    run, model = logged
    (output,) = MlflowClient().get_run(run).outputs.model_outputs
    assert (output.model_id, output.step) == (model.model_id, read_config(folder).best["step"])
    assert (model.name, model.source_run_id, str(model.status)) == ("lstm", run, "READY")


def test_checkpoint_says_where_its_files_are_and_which(logged, folder, dataset):
    _, model = logged
    assert model.tags["lvm.checkpoint"] == str(folder)
    assert model.tags["lvm.weights_sha256"] == read_config(folder).files["model.safetensors"]
    assert model.tags["lvm.dataset_digest"] == dataset.manifest.digest[:12]
    assert (model.params["model.arch"], model.params["epochs"]) == ("lstm", "3")


def test_what_was_measured_stands_at_the_run_and_at_the_checkpoint_with_its_dataset(logged, dataset):
    run, model = logged
    assert MlflowClient().get_run(run).data.metrics == {"val/cosine": 0.5, "test/cosine": 0.25}
    assert {metric.key: metric.value for metric in model.metrics} == {"val/cosine": 0.5, "test/cosine": 0.25}
    for metric in model.metrics:
        assert (metric.dataset_name, metric.dataset_digest, metric.step) == ("addresses", dataset.manifest.digest[:12], 9)


def test_checkpoint_of_an_earlier_version_is_refused_with_the_remedy(folder):
    config = read_config(folder)
    old = config.model_copy(update={"best": {name: value for name, value in config.best.items() if name != "step"}})
    with pytest.raises(InputError, match=r" was trained by an earlier version, .*: give --fresh$"):
        log_checkpoint("run", folder, old)


def test_files_are_not_copied(logged, workspace):
    assert [file for file in (workspace.mlruns / "artifacts").rglob("*.safetensors")] == []
