"""The file that declares which encoder made the vectors of an import."""

from pathlib import Path

import yaml

from lvm.config import parse
from lvm.data.recipe import EncoderRecipe
from lvm.errors import InputError


def read_recipe(path: Path) -> EncoderRecipe:
    """The recipe in a YAML or JSON file, with the fields of `recipe` in a dataset's manifest.

    Raises `InputError`, which names the file, when it cannot be read, or a field is missing, unknown or wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is neither YAML nor JSON ({' '.join(str(error).split())}): correct it") from error
    except OSError as error:
        raise InputError(
            f"recipe {path} cannot be read ({error.strerror}): give a file with the fields of the manifest's 'recipe'"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"recipe {path} holds no fields: expected {', '.join(EncoderRecipe.model_fields)}")
    try:
        return parse(EncoderRecipe, values)
    except InputError as error:
        raise InputError(f"recipe {path}: {error}") from error
