"""Calls to the Prefect server: the work pool and its worker, the deployments, and the end of running flows."""

import time
from collections.abc import Sequence
from contextlib import suppress

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed
from prefect.workers.process import ProcessWorker

from flows.services.process import POLL_SECONDS, Service

POOL = "lvm"
WORKER = "local"
CONCURRENT_RUNS = 2
"""Concurrent flow runs, so that a nightly validation need not wait for a long training. Trainers share the devices by leases."""


def api(server: Service) -> str:
    """Address of the API of a Prefect server."""
    return f"{server.address}/api"


def prepare_pool(server: Service) -> bool:
    """Create the work pool, or resume it where `cancel_runs` has paused it; returns whether it was created."""
    with SyncPrefectClient(api(server)) as client:
        try:
            client.read_work_pool(POOL)
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
            return False
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(
                WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=CONCURRENT_RUNS)
            )
            return True


def worker_polls(server: Service, worker: Service) -> bool:
    """Whether the server has heard from this worker since it started, and not only from an earlier one of the same name."""
    with SyncPrefectClient(api(server)) as client:
        found = [seen.last_heartbeat_time for seen in client.read_workers_for_work_pool(POOL) if seen.name == WORKER]
    return any(heard is not None and heard.timestamp() > worker.started for heard in found)


def deployed(server: Service) -> list[str]:
    """Names of all deployments, such as `retrain-all/local`."""
    with SyncPrefectClient(api(server)) as client:
        return sorted(f"{client.read_flow(found.flow_id).name}/{found.name}" for found in client.read_deployments())


def cancel_runs(server: Service, seconds: float) -> None:
    """Cancel the flow runs that the worker has begun and wait up to `seconds` for them to end. Scheduled runs stay scheduled."""
    with SyncPrefectClient(api(server)) as client:
        with suppress(ObjectNotFound):
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))  # so that the worker does not begin another one
        for run in _begun(client):
            client.set_flow_run_state(run.id, Cancelling(message="the services are being shut down"))
        end = time.monotonic() + seconds
        while _begun(client) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)


def close_lost_runs(server: Service) -> None:
    """Mark flow runs without a worker CRASHED. A machine that went down leaves them open, and each takes a slot of the pool for ever."""
    with SyncPrefectClient(api(server)) as client:
        for run in _begun(client):
            client.set_flow_run_state(run.id, Crashed(message="its worker is gone"), force=True)


def _begun(client: SyncPrefectClient) -> Sequence[FlowRun]:
    """The pool's flow runs that a worker has begun and that have not ended."""
    types = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=types)),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
    )
