"""The notification of a breach: a Prefect event, and an automation that turns it into a message.

`python -m tasks.nightly.alert [--webhook URL]` installs the automation on the server of `PREFECT_API_URL`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.schemas.automations import AutomationCore

from lvm.errors import GateRefused
from tasks.nightly.log_notification import LogNotification

EVENT = "lvm.nightly.breach"
RESOURCE = "lvm.champion"
AUTOMATION = Path(__file__).parents[2] / "automations" / "nightly-breach.yaml"
BLOCK = "nightly-breach"


@contextmanager
def announcing_breach(night: str) -> Iterator[None]:
    """Emit the event when a gate fails in the block, and raise its `GateRefused` again: that makes the flow fail."""
    try:
        yield
    except GateRefused as refused:
        resource = {"prefect.resource.id": RESOURCE, "prefect.resource.name": "champion"}
        emit_event(EVENT, resource, payload={"date": night, "reason": str(refused)})
        raise


def install_automation(webhook: str | None = None) -> str:
    """Create or update the automation of `automations/nightly-breach.yaml`; returns its id.

    It posts a JSON object with the field 'text' to `webhook`. Without one it writes to the server's log, which works on
    the server that `make up` starts: another one does not know the block.
    """
    if webhook:
        message = {"text": "{{subject}}: {{body}}"}
        block: Any = CustomWebhookNotificationBlock(name="lvm", url=webhook, method="POST", json_data=message)
    else:
        block = LogNotification()
    values = yaml.safe_load(AUTOMATION.read_text(encoding="utf-8"))
    for action in values["actions"]:
        action["block_document_id"] = block.save(BLOCK, overwrite=True)
    automation = AutomationCore.model_validate(values)
    with get_client(sync_client=True) as client:
        existing = client.read_automations_by_name(automation.name)
        if not existing:
            return str(client.create_automation(automation))
        client.update_automation(existing[0].id, automation)
        return str(existing[0].id)


def is_installed() -> bool:
    """Whether the server has the automation."""
    name = yaml.safe_load(AUTOMATION.read_text(encoding="utf-8"))["name"]
    with get_client(sync_client=True) as client:
        return bool(client.read_automations_by_name(name))


def main(
    webhook: Annotated[str | None, typer.Option(help="URL to which a breach is posted; by default the server's log.")] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Leave an existing automation as it is.")] = False,
) -> None:
    """Install the notification of a breach."""
    if if_missing and is_installed():
        return
    print(f"automation {install_automation(webhook)}: a breach goes to {webhook or 'the log of the Prefect server'}")


if __name__ == "__main__":
    typer.run(main)
