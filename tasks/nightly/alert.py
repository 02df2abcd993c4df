"""What follows a breach: a Prefect event, and an automation that turns it into a notification.

`python -m tasks.nightly.alert [--webhook URL]` sets the automation up on the server of `PREFECT_API_URL`.
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
    """Emit the event when a gate refuses in the block, then let the refusal go on: it is what ends the flow red."""
    try:
        yield
    except GateRefused as refused:
        resource = {"prefect.resource.id": RESOURCE, "prefect.resource.name": "champion"}
        emit_event(EVENT, resource, payload={"date": night, "reason": str(refused)})
        raise


def install_automation(webhook: str | None = None) -> str:
    """Create the automation of `automations/nightly-breach.yaml`, or bring it up to date; returns its id.

    It notifies through `webhook`, which gets a JSON object with the field 'text', or through the server's log.
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
        standing = client.read_automations_by_name(automation.name)
        if not standing:
            return str(client.create_automation(automation))
        client.update_automation(standing[0].id, automation)
        return str(standing[0].id)


def is_installed() -> bool:
    """Whether somebody is told already."""
    name = yaml.safe_load(AUTOMATION.read_text(encoding="utf-8"))["name"]
    with get_client(sync_client=True) as client:
        return bool(client.read_automations_by_name(name))


def main(
    webhook: Annotated[str | None, typer.Option(help="Where a breach is posted; the server's log by default.")] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Leave an automation that stands as it is.")] = False,
) -> None:
    """Set up who is told of a breach."""
    if if_missing and is_installed():
        return
    print(f"automation {install_automation(webhook)}: a breach goes to {webhook or 'the log of the Prefect server'}")


if __name__ == "__main__":
    typer.run(main)
