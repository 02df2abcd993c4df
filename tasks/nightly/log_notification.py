"""A notification block that writes to a log: what an automation calls where no webhook is set up.

The Prefect server runs an automation's action and must know the block, so it is an entry point of the
package (`prefect.collections` in pyproject.toml), and this file imports nothing else.
"""

from prefect.blocks.abstract import NotificationBlock


class LogNotification(NotificationBlock):
    """Writes a notification to the log of the process that runs it: the server's, for an automation."""

    _block_type_name = "LVM log notification"
    _block_type_slug = "lvm-log-notification"

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Log the notification as an error."""
        self.logger.error("%s: %s", subject, body)
