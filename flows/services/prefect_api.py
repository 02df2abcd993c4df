"""What is asked of the Prefect server: a work pool, whether its worker is there, what is deployed, an end of what runs."""

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
AT_ONCE = 2
"""Flow runs of the pool: the nightly validation need not wait for a long training. Their trainers share the devices by leases."""


def api(server: Service) -> str:
    """Address of the API of a Prefect server."""
    return f"{server.address}/api"


def prepare_pool(server: Service) -> bool:
    """Create the work pool; one that is there stays as it is, but goes on where `cancel_runs` paused it.

    Returns whether it had to be created.
    """
    with SyncPrefectClient(api(server)) as client:
        try:
            client.read_work_pool(POOL)
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
            return False
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=AT_ONCE))
            return True


def worker_polls(server: Service, worker: Service) -> bool:
    """Whether the server has heard from this very worker, not from one of the same name before it."""
    with SyncPrefectClient(api(server)) as client:
        found = [seen.last_heartbeat_time for seen in client.read_workers_for_work_pool(POOL) if seen.name == WORKER]
    return any(heard is not None and heard.timestamp() > worker.born for heard in found)


def deployed(server: Service) -> list[str]:
    """What can be run, as `retrain-all/local`."""
    with SyncPrefectClient(api(server)) as client:
        return sorted(f"{client.read_flow(found.flow_id).name}/{found.name}" for found in client.read_deployments())


def cancel_runs(server: Service, seconds: float) -> None:
    """Cancel what the worker runs and wait, at most so many seconds, until it has ended; what is only scheduled stays so."""
    with SyncPrefectClient(api(server)) as client:
        with suppress(ObjectNotFound):
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))  # or the worker would begin the next one
        for run in _begun(client):
            client.set_flow_run_state(run.id, Cancelling(message="The services are being shut down"))
        end = time.monotonic() + seconds
        while _begun(client) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)


def close_lost_runs(server: Service) -> None:
    """Close the flow runs that a machine which went down has left open: each would hold one of the pool's places for ever."""
    with SyncPrefectClient(api(server)) as client:
        for run in _begun(client):
            client.set_flow_run_state(run.id, Crashed(message="Its worker ended without it"), force=True)


def _begun(client: SyncPrefectClient) -> Sequence[FlowRun]:
    """The pool's flow runs that are in a worker's hands."""
    types = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=types)),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
    )
