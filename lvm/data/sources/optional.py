"""Libraries that only some kinds of input need."""

import importlib
from typing import Any

from lvm.errors import InputError

PACKAGES = {
    "markdown_it": "markdown-it-py",
    "mdit_py_plugins": "mdit-py-plugins",
    "html_text": "html-text",
    "docutils": "docutils",
    "charset_normalizer": "charset-normalizer",
}
"""What to install, by the name under which it is imported."""


def needed(module: str, what: str) -> Any:
    """The imported `module`; `InputError` that names the package when it is not installed and `what` needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = PACKAGES[module.split(".")[0]]
        raise InputError(f"{what} needs a package that is not installed: pip install '{package}'") from error
