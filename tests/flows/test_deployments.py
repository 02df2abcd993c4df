"""The services, really run: up on free ports, the flows deployed, what is refused, everything down again."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from mlflow import MlflowClient
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, StateType

from flows.services.prefect_api import CONCURRENT_RUNS, POOL
from flows.services.waiting import answers
from tests.support.checkout import HERE, Checkout, family, flow_runs, given, make_checkout
from tests.support.processes import alive, until

pytestmark = pytest.mark.slow

DEPLOYED = ["retrain-all/local", "train-decoder/local", "validate-nightly/nightly"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout whose services are up; its name would fall apart where a path is not quoted."""
    made = make_checkout(tmp_path_factory.mktemp("deployed") / "check out")
    try:
        done = made.services("up")
        assert done.returncode == 0, done.stderr
        (made.path / "said").write_text(done.stdout)
        yield made
    finally:
        made.services("down")


# Up


def test_up_prints_and_exports_addresses_that_answer(checkout):
    said = (checkout.path / "said").read_text()
    prefect, mlflow = checkout.address("PREFECT_API_URL"), checkout.address("MLFLOW_TRACKING_URI")
    assert re.search(rf"^Prefect +{re.escape(prefect.removesuffix('/api'))}$", said, re.M)
    assert re.search(rf"^MLflow +{re.escape(mlflow)}$", said, re.M)
    assert re.search(rf"^Deployed +{', '.join(DEPLOYED)}$", said, re.M)
    assert answers(f"{prefect}/health") and answers(f"{mlflow}/health")


def test_all_listen_on_loopback_alone_and_keep_prefect_s_home_in_the_checkout(checkout):
    for name in checkout.running():
        listening = {c.laddr.ip for member in family(checkout, name) for c in member.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}, name
    assert (checkout.path / ".prefect" / "home" / "prefect.db").exists()


def test_up_again_leaves_the_services_and_deploys_again(checkout):
    before = checkout.running()
    again = checkout.services("up")
    assert (again.returncode, again.stdout) == (0, (checkout.path / "said").read_text()), again.stderr
    assert checkout.running() == before and len(before) == 3


def test_missing_work_pool_is_named_by_deploy_and_made_again_by_up_with_a_worker_of_its_own(checkout):
    with checkout.client() as client:
        client.delete_work_pool(POOL)
    done = checkout.prefect("deploy", "--name", "retrain-all/local")
    assert done.returncode == 1
    assert f"references work pool '{POOL}' which does not exist" in done.stdout + done.stderr
    before = checkout.running()
    again = checkout.services("up")
    assert (again.returncode, again.stdout) == (0, (checkout.path / "said").read_text()), again.stderr
    after = checkout.running()
    assert after.pop("worker") != before.pop("worker", None) and after == before
    with checkout.client() as client:
        assert client.read_work_pool(POOL).concurrency_limit == CONCURRENT_RUNS
        assert {client.read_deployment_by_name(name).work_pool_name for name in DEPLOYED} == {POOL}


def test_nightly_deployment_has_one_scheduled_run_a_date_and_never_two_at_once(checkout):
    runs = until(lambda: flow_runs(checkout, "validate-nightly/nightly"))
    assert StateType.SCHEDULED in {run.state_type for run in runs}
    dates = [run.expected_start_time.date() for run in runs]
    assert len(set(dates)) == len(dates) > 1, "it was deployed twice"
    assert {run.expected_start_time.strftime("%H:%M %Z") for run in runs} == {"03:00 UTC"}
    with checkout.client() as client:
        found = client.read_deployment_by_name("validate-nightly/nightly")
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options.collision_strategy == ConcurrencyLimitStrategy.ENQUEUE


@pytest.mark.parametrize("name", DEPLOYED)
def test_prefect_s_form_has_each_parameter_with_its_description(name, checkout):
    with checkout.client() as client:
        schema = client.read_deployment_by_name(name).parameter_openapi_schema
    assert {"root", "device", "max_docs"} <= set(schema["properties"])
    for parameter, shown in schema["properties"].items():
        assert shown["description"], parameter


# What is refused


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"sauces": ["x"]}, r"not found on the deployment: 'sauces'"),
        ({"architectures": ["lstm", "rnn"]}, r"Validation failed for field 'architectures\[1\]'.*'rnn' is not one of \['lstm'"),
        ({"max_docs": "many"}, r"Validation failed for field 'max_docs'.*'many'"),
    ],
)
def test_unknown_parameter_or_value_is_named_and_nothing_is_run(parameters, says, checkout):
    done = checkout.prefect("deployment", "run", "retrain-all/local", *given(**parameters))
    assert done.returncode == 1
    assert re.search(says, done.stdout + done.stderr), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert flow_runs(checkout, "retrain-all/local") == []


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout in which nothing runs."""
    made = make_checkout(tmp_path_factory.mktemp("another") / "checkout")
    try:
        yield made
    finally:
        made.services("down")


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_port_in_use_is_one_sentence_and_nothing_stays_started(name, checkout, another):
    port, variable = checkout.running()[name].port, f"{name.upper()}_PORT"
    done = another.services("up", **{variable: str(port)})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip() == (
        f"flows.services: {variable}: port {port} of 127.0.0.1 is in use: give another one, or unset {variable} for a free one"
    )
    assert another.running() == {}


def test_running_services_do_not_move_to_another_port(checkout):
    before = checkout.running()
    done = checkout.services("up", MLFLOW_PORT="1")
    assert done.returncode == 2
    assert re.fullmatch(
        r"flows\.services: MLFLOW_PORT: mlflow is running on port \d+: run 'make down' before you change it to 1\n", done.stderr
    )
    assert checkout.running() == before


def test_service_that_dies_is_one_sentence_with_its_log_and_takes_the_others_with_it(another):
    (another.path / ".prefect" / "home").mkdir(parents=True, exist_ok=True)
    (another.path / ".prefect" / "home" / "prefect.db").write_text("this is no database, and the server will not start on it" * 99)
    done = another.services("up")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    log = another.path / ".prefect" / "prefect.log"
    assert sentence.startswith("flows.services: prefect ended while it started: ") and sentence.endswith(f"(whole log: {log})")
    assert another.running() == {}
    assert not (another.path / ".prefect" / "env").exists()


def test_mlflow_server_that_is_named_and_does_not_answer_is_one_sentence(another):
    done = another.services("up", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("flows.services: MLFLOW_TRACKING_URI: nothing answers at http://127.0.0.1:1: ")
    assert len(done.stderr.splitlines()) == 1 and another.running() == {}


def test_services_start_in_a_checkout_only(checkout, tmp_path):
    environment = checkout.environment | {"PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-m", "flows.services", "up"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stderr == f"flows.services: there is no prefect.yaml in {tmp_path}: run this in the checkout\n"
    assert list(tmp_path.iterdir()) == []


# Down


def test_down_cancels_what_runs_and_leaves_no_process(checkout, few_documents):
    long = ["decoder.rounds=1000", "decoder.texts=128", "decoder.batch=32", "decoder.model.width=64"]
    asked = given(sources=[str(few_documents)], settings=long, device="cpu")
    begun = checkout.prefect("deployment", "run", "train-decoder/local", *asked)
    assert begun.returncode == 0, begun.stderr
    until(lambda: any("train-decoder" in member.cmdline() for member in family(checkout, "worker")), 300)
    members = [member.pid for name in checkout.running() for member in family(checkout, name)]
    assert len(members) >= 5, "three services, the flow run, its trainer"

    down = checkout.services("down")
    assert (down.returncode, down.stdout) == (0, "Stopped worker, mlflow, prefect\n"), down.stderr
    assert [pid for pid in members if alive(pid)] == []
    assert checkout.running() == {} and not (checkout.path / ".prefect" / "env").exists()
    with sqlite3.connect(checkout.path / ".prefect" / "home" / "prefect.db") as database:
        states = set(database.execute("SELECT flow.name, flow_run.state_type FROM flow_run JOIN flow ON flow.id = flow_run.flow_id"))
    assert states >= {("train-decoder", "CANCELLED"), ("validate-nightly", "SCHEDULED")}
    assert not {state for _, state in states} & {"PENDING", "RUNNING", "CANCELLING"}
    with sqlite3.connect(checkout.path / "mlruns" / "mlflow.db") as database:
        assert {status for (status,) in database.execute("SELECT status FROM runs")} == {"FAILED"}


def test_down_again_has_nothing_to_do(checkout):
    checkout.services("down")
    again = checkout.services("down")
    assert (again.returncode, again.stdout) == (0, "Nothing is running\n"), again.stderr


def test_ui_starts_mlflow_alone_also_in_a_shell_that_still_has_the_old_addresses(checkout):
    checkout.services("down")
    MlflowClient(tracking_uri=f"sqlite:///{checkout.path / 'mlruns' / 'mlflow.db'}").create_experiment("kept")
    old = {"PREFECT_HOME": str(checkout.path / ".prefect" / "home"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    done = checkout.services("ui", **old)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"MLflow    {checkout.address('MLFLOW_TRACKING_URI')}\n"
    assert set(checkout.running()) == {"mlflow"}
    assert checkout.mlflow().get_experiment_by_name("kept") is not None, "the store is the one from before"
    assert checkout.services("down").stdout == "Stopped mlflow\n"
