"""What the modules of a sentence-transformers model mean for its recipe."""

from typing import Any

from lvm.errors import InputError

TRANSFORMER, STATIC = "Transformer", "StaticEmbedding"

DESCRIBED = (TRANSFORMER, STATIC, "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
"""Modules whose effect a recipe describes: what they have learned is in the weights' digest. Dropout does nothing in use."""

REASONS = {
    "Router": "sends queries and documents through different modules, so one text has several vectors: give one of its routes as a folder",
    "WordEmbeddings": "has word lists of its own instead of a tokenizer that can count a chunk's tokens",
}


def describe_modules(name: str, model: Any, prompt: str) -> dict[str, Any]:
    """The fields `pooling`, `dense`, `normalize` and `modules` of the recipe of a `SentenceTransformer`.

    Raises `InputError` when a recipe cannot describe a module, or when nothing turns token vectors into one.
    """
    kinds = [type(module).__name__ for module in model]
    for kind in kinds:
        if kind not in DESCRIBED:
            why = REASONS.get(kind, f"is none of {', '.join(DESCRIBED)}, so the recipe of its vectors cannot be written down")
            raise InputError(f"encoder {name!r}: its module {kind} {why}")
    if kinds[0] not in (TRANSFORMER, STATIC):
        raise InputError(f"encoder {name!r}: its first module is {kinds[0]}, expected {TRANSFORMER} or {STATIC}")
    if kinds[0] == TRANSFORMER and "Pooling" not in kinds:
        raise InputError(f"encoder {name!r}: no pooling module; not a sentence-transformers model of sentences")
    working = [kind for kind in kinds if kind != "Dropout"]
    first = [TRANSFORMER, "Pooling"] if kinds[0] == TRANSFORMER else [STATIC]
    standard = [*first, *["Dense"] * kinds.count("Dense"), *["Normalize"] * ("Normalize" in kinds)]
    return {
        "pooling": _pooling(model[kinds.index("Pooling")], prompt) if "Pooling" in kinds else "static",
        "dense": "Dense" in kinds,
        "normalize": kinds[-1] == "Normalize" and model[-1].module_input_name == "sentence_embedding",
        "modules": "" if working == standard else "+".join(working),
    }


def _pooling(module: Any, prompt: str) -> str:
    """The modes of a pooling module, joined by '+', and whether it leaves the prompt's tokens out."""
    modes = module.pooling_mode
    joined = modes if isinstance(modes, str) else "+".join(modes)
    return f"{joined} without the prompt" if prompt and not module.include_prompt else joined
