"""A script run in two processes by torchrun, as a user would start it."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Write `script` into `folder` and run it with `arguments`; `folder` is its last argument."""
    (folder / "together.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*launch, folder / "together.py", *arguments, folder]
    return subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=300)
