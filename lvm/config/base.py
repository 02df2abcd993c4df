"""The base of all configurations, and errors that name the field."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lvm.atomic_io import read_json, verified_fields
from lvm.errors import InputError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of all configurations: immutable, no unknown field, docstrings as descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def parse(kind: type[C], values: Any, prefix: str = "") -> C:
    """Validate `values` as `kind`. A wrong or unknown field becomes an `InputError` that names it, with `prefix` before its name."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{kind.__name__}: {problems(kind, error, prefix)}") from error


def problems(kind: type[Config], error: ValidationError, prefix: str = "") -> str:
    """What is wrong with the values of `kind`, field by field, joined to one sentence."""
    parts = []
    for problem in error.errors():
        path = list(problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(_group(kind, path[:-1]).model_fields)
            parts.append(f"unknown field '{prefix}{'.'.join(map(str, path))}' (known: {known})")
        elif problem["type"] == "unknown_term":
            field = ".".join([*map(str, path), problem["ctx"]["name"]])
            parts.append(f"unknown field '{prefix}{field}' (known: {problem['ctx']['known']})")
        else:
            parts.append(f"field '{prefix}{'.'.join(map(str, path))}': {problem['msg']}")
    return "; ".join(parts)


def read_versioned(kind: type[C], file: Path, version: int, remedy: str, digest_required: bool = True, older: str = "") -> C:
    """The configuration in the JSON file `file`, whose field 'format' must be `version`.

    Raises `InputError`, which ends in `remedy`, when it is not JSON, of another format, or altered (see `verified_fields`); and what
    `parse` raises. `older` is the remedy for another format, where that is not the same.
    """
    values = read_json(file, remedy)
    if not isinstance(values, dict) or values.get("format") != version:
        raise InputError(f"{file}: field 'format' must be {version}; {older or remedy} with this version")
    return parse(kind, verified_fields(file, values, remedy, digest_required))


def _group(kind: type[Config], path: list[int | str]) -> type[Config]:
    """The configuration class that the names in `path` lead to."""
    for name in path:
        inner = kind.model_fields[str(name)].annotation
        if not (isinstance(inner, type) and issubclass(inner, Config)):
            return kind
        kind = inner
    return kind
