"""A script in two processes under torchrun, as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path


def torchrun(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `script`, written into `folder`, with `arguments` and, as the last one, the folder."""
    (folder / "together.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*launch, folder / "together.py", *arguments, folder]
    return subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=300)
