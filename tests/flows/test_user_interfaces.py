"""What a person sees in MLflow and in Prefect after the whole job: models beside each other, figures, the champion, the flow.

pytest -m slow tests/flows/test_user_interfaces.py --screenshots docs/images --basetemp /srv/lvm
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from selenium.webdriver.common.by import By

from flows.retrain_all import ARCHITECTURES
from tests.flows.test_deployments import Checkout, flow_runs, given, make_checkout
from tests.support.browser import Browser

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Seen:
    """The whole job has run once, and its services are up."""

    checkout: Checkout
    parent: Run
    children: dict[str, Run]

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
def browser() -> Iterator[Browser]:
    """One for all; what is not installed is found out before anything is trained."""
    opened = Browser()
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def seen(browser: Browser, few_documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    checkout = make_checkout(tmp_path_factory.mktemp("ui") / "checkout")
    try:
        up = checkout.services("up")
        assert up.returncode == 0, up.stderr
        asked = given(sources=[str(few_documents)], settings=["model.width=128", "epochs=8"], decoder="none", device="cpu")
        done = checkout.prefect("deployment", "run", "retrain-all/local", "--watch", *asked)
        assert done.returncode == 0, done.stdout[-3000:] + (checkout.path / ".prefect" / "worker.log").read_text()[-3000:]
        client = checkout.mlflow()
        runs = client.search_runs([client.get_experiment_by_name("lvm").experiment_id])
        (parent,) = (run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags)
        yield Seen(checkout, parent, {run.info.run_name: run for run in runs if run is not parent})
    finally:
        checkout.services("down")


@pytest.fixture()
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where they go: the README's folder when it is asked for."""
    return Path(request.config.getoption("--screenshots") or tmp_path)


def test_runs_of_the_three_models_stand_below_their_flow_s(seen, browser):
    browser.open(f"{seen.experiment}/runs", seen.parent.info.run_name, "4 matching runs")
    browser.click(By.CSS_SELECTOR, "[role=row] button[data-component-id*=runnamecellrenderer]")
    browser.reads(*ARCHITECTURES, "addresses (")


def test_link_in_the_flow_s_run_opens_the_curves_of_the_three_in_one_chart_a_metric(seen, browser, pictures):
    browser.open(seen.run(seen.parent), "Champion: ", "their curves", *ARCHITECTURES)
    browser.click(By.LINK_TEXT, "their curves")
    browser.reads("3 matching runs", *ARCHITECTURES)
    browser.paste("input[placeholder='Search metric charts']", "best/(skill_)?(cosine|recall_at_5|mrr)$")
    for metric in ("best/cosine", "best/skill_cosine", "best/recall_at_5", "best/skill_recall_at_5"):
        browser.reads(metric, *(f"{arch} ({metric})" for arch in ARCHITECTURES[:2]))
    browser.count(".js-plotly-plot:first-of-type .scatterlayer .trace", 3)
    browser.picture(pictures / "mlflow-curves.png")


def test_link_in_the_flow_s_run_opens_the_numbers_of_the_three_side_by_side(seen, browser):
    browser.open(seen.run(seen.parent), "their numbers")
    browser.click(By.LINK_TEXT, "their numbers")
    browser.reads("Comparing 3 Runs from 1 Experiment", "model.arch", *ARCHITECTURES, "best/cosine", "best/recall_at_10")
    browser.count(".js-plotly-plot", 1)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_figure_of_a_run_is_shown_among_its_artifacts(arch, seen, browser, pictures):
    browser.open(f"{seen.run(seen.children[arch])}/artifacts/figures/training.png", arch, "skill.png", "card.md")
    drawn = "return [...document.images].some(i => i.naturalWidth > 1000 && i.getBoundingClientRect().width > 300)"
    browser.until(lambda: browser.driver.execute_script(drawn), "the figure in")
    if arch == ARCHITECTURES[0]:
        browser.picture(pictures / "mlflow-figure.png")


def test_run_shows_what_its_host_did(seen, browser):
    browser.open(f"{seen.run(seen.children['lstm'])}/system-metrics", "cpu_utilization_percentage", "chunks_per_second")
    browser.count(".js-plotly-plot", 2)


def test_each_checkpoint_is_a_model_with_what_was_measured_on_it(seen, browser):
    browser.open(f"{seen.experiment}/models", *ARCHITECTURES, "Ready")
    (output,) = seen.children["mamba2"].outputs.model_outputs
    browser.open(f"{seen.experiment}/models/{output.model_id}", "mamba2", "val/skill_cosine", "addresses (#")


def test_registered_model_shows_its_champion_and_its_card(seen, browser, pictures):
    registry = f"{seen.checkout.address('MLFLOW_TRACKING_URI')}/#/models/lvm"
    browser.open(registry, "Version 1", "@ champion", "@ challenger", "lvm.arch", "Predictors of the embedding")
    browser.picture(pictures / "mlflow-registry.png")
    browser.open(f"{registry}/versions/1", "Latent vector model", "Limits: an honest prediction")


def test_prefect_shows_the_flow_run_its_tasks_and_its_artifacts(seen, browser, pictures):
    browser.open(seen.flow_run, "Completed", "retrain-all", "12 Task runs")
    browser.click(By.XPATH, "//li[contains(@class, 'p-tab')][normalize-space() = 'Artifacts']")
    browser.reads("data-gates", "comparison", *(f"model-{arch}" for arch in ARCHITECTURES))
    browser.picture(pictures / "prefect-flow-run.png")


def test_prefect_s_comparison_leads_to_the_curves_in_mlflow(seen, browser):
    browser.open(seen.flow_run, "12 Task runs")
    browser.click(By.XPATH, "//li[contains(@class, 'p-tab')][normalize-space() = 'Artifacts']")
    browser.click(By.PARTIAL_LINK_TEXT, "comparison")
    browser.reads("Models on test documents", "(champion)", *ARCHITECTURES)
    browser.click(By.LINK_TEXT, "their curves")
    browser.reads("3 matching runs", *ARCHITECTURES)
    assert browser.driver.current_url.startswith(seen.experiment)
