"""Every setting as a list, as a Markdown table and as a JSON schema, all read off the configuration classes."""

from dataclasses import asdict, dataclass
from typing import Any

from lvm.config.base import Config
from lvm.config.registry import ARCHITECTURES, LOSS_TERMS
from lvm.config.settings import GIVEN, SECTIONS
from lvm.config.train import LossConfig, TrainConfig

READ_BY = {
    "training": "lvm train",
    "chunker": "lvm extract",
    "splits": "lvm extract",
    "gates": "lvm diagnose, lvm train, lvm validate",
    "decoder": "lvm train-decoder",
    "serving": "lvm serve",
}
"""The commands that read each section. Flows read those of the commands that they stand for."""

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "over {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "under {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matching {}",
}


@dataclass(frozen=True)
class Setting:
    """One field that can be set."""

    name: str
    """As in `--set NAME=VALUE`."""

    section: str
    """`training` for the fields at the root."""

    type: str
    default: Any
    bounds: str
    """In words; "" where any value of the type will do."""

    meaning: str

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def list_settings() -> list[Setting]:
    """Every field that can be set, section by section."""
    found = _fields(TrainConfig, "", "training")
    for section, kind in SECTIONS.items():
        found += _fields(kind, f"{section}.", section)
    return found


def settings_markdown() -> str:
    """The settings as Markdown, a table a section, for docs/settings.md."""
    parts = []
    settings = list_settings()
    for section, commands in READ_BY.items():
        title = "Training" if section == "training" else f"`{section}`"
        parts += [f"### {title}", f"Read by {commands}.", "| setting | default | bounds | meaning |\n|---|---|---|---|"]
        rows = [_row(setting) for setting in settings if setting.section == section]
        parts[-1] += "".join(f"\n{row}" for row in rows)
    return "\n\n".join(parts) + "\n"


def settings_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a file for `--config`; editors complete and check against it."""
    training, definitions = _schema(TrainConfig)
    definitions["Training"] = training
    properties: dict[str, Any] = dict(training["properties"])
    for section, kind in SECTIONS.items():
        definitions[kind.__name__], inner = _schema(kind)
        definitions |= inner
        properties[section] = {"$ref": f"#/$defs/{kind.__name__}"}
    for arch in ARCHITECTURES:
        properties[arch] = {"$ref": "#/$defs/Training", "description": f"Training settings of {arch} alone."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of the LVM pipeline",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": dict(sorted(definitions.items())),
    }


def _fields(kind: type[Config], prefix: str, section: str) -> list[Setting]:
    """The fields of a configuration, groups opened; in the order in which they are declared."""
    schema = kind.model_json_schema()
    out: list[Setting] = []
    group = prefix.removesuffix(".")
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            out += _fields(field.annotation, f"{prefix}{name}.", section)
        elif name not in GIVEN.get(group, ()):
            about = schema["properties"][name]
            default = field.get_default(call_default_factory=True)
            out.append(Setting(prefix + name, section, _type(about), default, _bounds(about), field.description or ""))
    if kind is LossConfig:
        out += [Setting(prefix + term, section, "number", 0.0, "at least 0", meaning) for term, meaning in _further_terms().items()]
    return out


def _type(about: dict[str, Any]) -> str:
    """`integer`, `number or null`, `residual | legacy`."""
    if "anyOf" in about:
        return " or ".join(_type(option) for option in about["anyOf"])
    return " | ".join(about["enum"]) if "enum" in about else str(about["type"])


def _bounds(about: dict[str, Any]) -> str:
    options = [about, *about.get("anyOf", [])]
    parts = [form.format(option[name]) for option in options for name, form in BOUNDS.items() if name in option]
    return ", ".join(parts)


def _row(setting: Setting) -> str:
    kind = f" ({setting.type})" if "|" in setting.type or "null" in setting.type else ""
    default = "null" if setting.default is None else str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
    cells = [f"`{setting.name}`", f"`{default}`", setting.bounds + kind, setting.meaning]
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"


def _schema(kind: type[Config]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a configuration without what cannot be set, and the definitions that it refers to."""
    schema = kind.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})
    if kind is TrainConfig:
        schema.pop("required")
        for group, names in GIVEN.items():
            inner = definitions[schema["properties"][group]["$ref"].rpartition("/")[2]]
            inner["properties"] = {name: about for name, about in inner["properties"].items() if name not in names}
            inner.pop("required")
        loss = definitions[LossConfig.__name__]
        loss["additionalProperties"] = False
        for term, meaning in _further_terms().items():
            loss["properties"][term] = {"default": 0.0, "minimum": 0, "type": "number", "description": meaning}
    return schema, definitions


def _further_terms() -> dict[str, str]:
    """Loss terms from outside the package, whose weights are no declared fields, with what they mean."""
    own = LossConfig.model_fields
    return {name: f"Weight of: {(term.__doc__ or name).strip().splitlines()[0]}" for name, term in LOSS_TERMS.items() if name not in own}
