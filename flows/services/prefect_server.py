"""Prefect's own command, which here also knows the notification block of this checkout.

    python -m flows.services.prefect_server server start

The server runs an automation's action in its own process, and finds a block's class only if something has
imported it there. An entry point would do that for an installed package, but tasks/ is not installed.
"""

from prefect.cli import app

import tasks.nightly.log_notification  # noqa: F401 (registers the block)

if __name__ == "__main__":
    app()
