"""The flows: each reads as the list of its steps. They run from the checkout; the wheel holds `lvm` alone."""

import os
import sys

from lvm.errors import InputError, require_extra

# Prefect reads these when it is imported. Without them, a server on a machine without network logs an error at
# each start, and one on a slow machine is given up before it is ready.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

try:
    require_extra("pipeline", "a flow")
except InputError as missing:
    print(f"flows: {missing}", file=sys.stderr)
    sys.exit(missing.exit_code)
