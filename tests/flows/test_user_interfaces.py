"""The deployment of retrain-all, really run, and what a person then sees in MLflow and Prefect: models, figures, champion, flow.

pytest -m slow tests/flows/test_user_interfaces.py --screenshots docs/images --basetemp /srv/lvm
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from prefect.client.schemas.objects import StateType
from selenium.webdriver.common.by import By

from flows.retrain_all import DEFAULT_ARCHITECTURES
from tests.support.browser import Browser
from tests.support.checkout import Checkout, flow_runs, given, make_checkout

pytestmark = pytest.mark.slow


SETTINGS = ["model.width=128", "epochs=8"]


@dataclass(frozen=True)
class Done:
    """The deployment has run once, and its services are up."""

    checkout: Checkout
    said: subprocess.CompletedProcess[str]

    @cached_property
    def runs(self) -> list[Run]:
        """All MLflow runs, through MLflow's server."""
        client = self.checkout.mlflow()
        return list(client.search_runs([client.get_experiment_by_name("lvm").experiment_id]))

    @property
    def parent(self) -> Run:
        """The flow's own MLflow run."""
        (found,) = (run for run in self.runs if MLFLOW_PARENT_RUN_ID not in run.data.tags)
        return found

    @property
    def children(self) -> dict[str, Run]:
        """The models' MLflow runs, by architecture."""
        parent = self.parent.info.run_id
        return {run.info.run_name: run for run in self.runs if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent}

    @property
    def experiment(self) -> str:
        """Its page in MLflow."""
        return f"{self.checkout.address('MLFLOW_TRACKING_URI')}/#/experiments/{self.parent.info.experiment_id}"

    def run(self, run: Run) -> str:
        """A run's page in MLflow."""
        return f"{self.experiment}/runs/{run.info.run_id}"

    @property
    def flow_run(self) -> str:
        """The flow run's page in Prefect."""
        (run,) = flow_runs(self.checkout, "retrain-all/local")
        return f"{self.checkout.address('PREFECT_API_URL').removesuffix('/api')}/runs/flow-run/{run.id}"


@pytest.fixture(scope="module")
def done(few_documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """`prefect deployment run 'retrain-all/local' --watch` on few documents; the folder's name is one that needs quoting."""
    checkout = make_checkout(tmp_path_factory.mktemp("deployed") / "check out")
    try:
        up = checkout.services("up")
        assert up.returncode == 0, up.stderr
        asked = given(sources=[str(few_documents)], settings=SETTINGS, decoder="none", device="cpu")
        said = checkout.prefect("deployment", "run", "retrain-all/local", "--watch", *asked)
        assert said.returncode == 0, said.stdout[-3000:] + (checkout.path / ".prefect" / "worker.log").read_text()[-3000:]
        yield Done(checkout, said)
    finally:
        checkout.services("down")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    opened = Browser()
    yield opened
    opened.driver.quit()


@pytest.fixture()
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where they go: the README's folder when it is asked for."""
    return Path(request.config.getoption("--screenshots") or tmp_path)


# What the deployment did


def test_deployment_run_does_the_whole_job(done):
    assert "Flow run finished successfully in 'Completed'" in done.said.stdout
    (run,) = flow_runs(done.checkout, "retrain-all/local")
    assert run.state_type == StateType.COMPLETED
    assert (done.checkout.path / "models" / "champion" / "model.safetensors").exists(), "paths are relative to the checkout"


def test_mlflow_s_server_has_the_run_its_three_models_and_their_files(done, tmp_path):
    client = done.checkout.mlflow()
    assert set(done.children) == set(DEFAULT_ARCHITECTURES) and len(done.runs) == 4
    assert {run.info.status for run in done.runs} == {"FINISHED"}
    (flow_run,) = flow_runs(done.checkout, "retrain-all/local")
    assert done.parent.data.tags["lvm.prefect_flow_run_id"] == str(flow_run.id)
    report = Path(client.download_artifacts(done.parent.info.run_id, "report.md", str(tmp_path))).read_text(encoding="utf-8")
    assert "Models on test documents" in report
    assert str(client.get_model_version_by_alias("lvm", "champion").version) == "1"


# What a person sees in a browser


def test_runs_of_the_three_models_stand_below_their_flow_s(done, browser):
    browser.open(f"{done.experiment}/runs", done.parent.info.run_name, "4 matching runs")
    browser.click(By.CSS_SELECTOR, "[role=row] button[data-component-id*=runnamecellrenderer]")
    browser.reads(*DEFAULT_ARCHITECTURES, "addresses (")


def test_link_in_the_flow_s_run_opens_the_curves_of_the_three_in_one_chart_a_metric(done, browser, pictures):
    browser.open(done.run(done.parent), "Champion: ", "their curves", *DEFAULT_ARCHITECTURES)
    browser.click(By.LINK_TEXT, "their curves")
    browser.reads("3 matching runs", *DEFAULT_ARCHITECTURES)
    browser.paste("input[placeholder='Search metric charts']", "best/(skill_)?(cosine|recall_at_5|mrr)$")
    for metric in ("best/cosine", "best/skill_cosine", "best/recall_at_5", "best/skill_recall_at_5"):
        browser.reads(metric, *(f"{arch} ({metric})" for arch in DEFAULT_ARCHITECTURES[:2]))
    browser.count(".js-plotly-plot:first-of-type .scatterlayer .trace", 3)
    browser.picture(pictures / "mlflow-curves.png")


def test_link_in_the_flow_s_run_opens_the_numbers_of_the_three_side_by_side(done, browser):
    browser.open(done.run(done.parent), "their numbers")
    browser.click(By.LINK_TEXT, "their numbers")
    browser.reads("Comparing 3 Runs from 1 Experiment", "model.arch", *DEFAULT_ARCHITECTURES, "best/cosine", "best/recall_at_10")
    browser.count(".js-plotly-plot", 1)


@pytest.mark.parametrize("arch", DEFAULT_ARCHITECTURES)
def test_figure_of_a_run_is_shown_among_its_artifacts(arch, done, browser, pictures):
    browser.open(f"{done.run(done.children[arch])}/artifacts/figures/training.png", arch, "skill.png", "card.md")
    drawn = "return [...document.images].some(i => i.naturalWidth > 1000 && i.getBoundingClientRect().width > 300)"
    browser.until(lambda: browser.driver.execute_script(drawn), "the figure in")
    if arch == DEFAULT_ARCHITECTURES[0]:
        browser.picture(pictures / "mlflow-figure.png")


def test_run_shows_what_its_host_did(done, browser):
    browser.open(f"{done.run(done.children['lstm'])}/system-metrics", "cpu_utilization_percentage", "chunks_per_second")
    browser.count(".js-plotly-plot", 2)


def test_each_checkpoint_is_a_model_with_what_was_measured_on_it(done, browser):
    browser.open(f"{done.experiment}/models", *DEFAULT_ARCHITECTURES, "Ready")
    (output,) = done.children["mamba2"].outputs.model_outputs
    browser.open(f"{done.experiment}/models/{output.model_id}", "mamba2", "val/skill_cosine", "addresses (#")


def test_registered_model_shows_its_champion_and_its_card(done, browser, pictures):
    registry = f"{done.checkout.address('MLFLOW_TRACKING_URI')}/#/models/lvm"
    browser.open(registry, "Version 1", "@ champion", "@ challenger", "lvm.arch", "Predictors of the embedding")
    browser.picture(pictures / "mlflow-registry.png")
    browser.open(f"{registry}/versions/1", "Latent vector model", "Limits: the next chunk can only be predicted roughly")


def test_prefect_shows_the_flow_run_its_tasks_and_its_artifacts(done, browser, pictures):
    browser.open(done.flow_run, "Completed", "retrain-all", "12 Task runs")
    browser.click(By.XPATH, "//li[contains(@class, 'p-tab')][normalize-space() = 'Artifacts']")
    browser.reads("data-gates", "comparison", *(f"model-{arch}" for arch in DEFAULT_ARCHITECTURES))
    browser.picture(pictures / "prefect-flow-run.png")


def test_prefect_s_comparison_leads_to_the_curves_in_mlflow(done, browser):
    browser.open(done.flow_run, "12 Task runs")
    browser.click(By.XPATH, "//li[contains(@class, 'p-tab')][normalize-space() = 'Artifacts']")
    browser.click(By.PARTIAL_LINK_TEXT, "comparison")
    browser.reads("Models on test documents", "(champion)", *DEFAULT_ARCHITECTURES)
    browser.click(By.LINK_TEXT, "their curves")
    browser.reads("3 matching runs", *DEFAULT_ARCHITECTURES)
    assert browser.driver.current_url.startswith(done.experiment)
