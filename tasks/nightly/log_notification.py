"""A notification block that writes to a log: what the breach automation calls when no webhook is set up.

The Prefect server runs an automation's action and must have imported the block, so `make up` starts it through
flows/services/prefect_server.py. That imports this file at every start: keep its imports few.
"""

from prefect.blocks.abstract import NotificationBlock


class LogNotification(NotificationBlock):
    """Writes a notification to the log of the process that runs it: the Prefect server, for an automation."""

    _block_type_name = "LVM log notification"
    _block_type_slug = "lvm-log-notification"

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Log the notification as an error."""
        self.logger.error("%s: %s", subject, body)
