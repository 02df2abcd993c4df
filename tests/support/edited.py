"""Files with other content and the digest that fits it, as a faulty writer would leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvm.atomic_io import DIGEST_FIELD, write_json_with_digest


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the object in a JSON file."""
    values = json.loads(file.read_text(encoding="utf-8"))
    values.pop(DIGEST_FIELD, None)
    change(values)
    write_json_with_digest(file, values)
