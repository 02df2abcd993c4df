"""A vec2text checkpoint loads from a folder or from the hub, and one that is not whole is refused by name."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lvm.decoding.load import load_decoder
from lvm.decoding.vec2text import checkpoint as vec2text_checkpoint
from lvm.decoding.vec2text.decoder import Vec2TextDecoder
from lvm.errors import InputError
from tests.support.vec2text_models import EMBEDDERS, copied, make_checkpoint


def test_t5_that_cannot_be_had_is_named_with_the_remedy(folder, gtr, tmp_path):
    shutil.copytree(folder, tmp_path / "no-t5", ignore=shutil.ignore_patterns("t5"))
    with pytest.raises(InputError, match=r"cannot be downloaded from the hub; .* give a folder with inversion/"):
        Vec2TextDecoder(str(tmp_path / "no-t5"), "cpu", 1, gtr)


def test_published_pair_is_read_from_the_hub_as_safetensors_with_our_gtr_recipe(folder, gtr, monkeypatch):
    parts = {"jxm/gtr__nq__32": "inversion", "jxm/gtr__nq__32__correct": "corrector", "t5-base": "t5"}
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(folder / parts[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    decoder = load_decoder("vec2text:gtr-base", steps=1)
    assert decoder.recipe == gtr.recipe and decoder.recipe.name == "gtr-t5-base"
    assert set(asked) == set(parts)
    names = ("pytorch_model.bin", "model.pt", "optimizer.pt", "spiece.bin", "vocab.pkl")
    assert not any(fnmatch(name, pattern) for name in names for patterns in asked.values() for pattern in patterns), "no pickles"
    assert "*.safetensors" not in asked["t5-base"], "the T5 it began as is not needed"
    assert len(decoder.decode(gtr.encode(["Peace."]))) == 1


def test_t5_whose_decoder_is_deeper_than_its_encoder_decodes(gtr, texts, tmp_path):
    make_checkpoint(tmp_path, gtr, EMBEDDERS[768], texts[:2], decoder_layers=2)
    assert len(Vec2TextDecoder(str(tmp_path), "cpu", 2, gtr, beam=2).decode(gtr.encode(texts[:2]))) == 2


def test_weights_of_the_embedder_in_a_checkpoint_are_left_out(folder, gtr, tmp_path):
    target = copied(folder, tmp_path / "whole")
    file = target / "inversion" / "model.safetensors"
    save_file(load_file(file) | {"embedder.shared.weight": torch.ones(2, 2)}, file)
    vector = gtr.encode(["Peace."])
    assert load_decoder(f"vec2text:{target}", steps=0, encoder=gtr).decode(vector) == load_decoder(
        f"vec2text:{folder}", steps=0, encoder=gtr
    ).decode(vector)


def damage(target: Path, kind: str) -> None:
    """Spoil one file of a checkpoint."""
    weights, config = target / "inversion" / "model.safetensors", target / "inversion" / "config.json"
    tensors, fields = load_file(weights), json.loads(config.read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "tensor missing":
        save_file({key: value for key, value in tensors.items() if key != "embedding_transform.3.bias"}, weights)
    elif kind == "tensor unknown":
        save_file(tensors | {"embedding_transform.9.bias": torch.zeros(3)}, weights)
    elif kind == "tied tensors apart":
        name = next(key for key in tensors if key.endswith(("shared.weight", "lm_head.weight")))
        other = "encoder_decoder.decoder.embed_tokens.weight"
        save_file(tensors | {other: tensors[name] + 1}, weights)
    elif kind == "pickled":
        weights.rename(weights.with_name("pytorch_model.bin"))
    elif kind == "other config":
        config.write_text(json.dumps(fields | {"num_repeat_tokens": 5}))
    elif kind == "config missing":
        config.unlink()
    elif kind == "config field missing":
        del fields["num_repeat_tokens"]
        config.write_text(json.dumps(fields))
    elif kind == "tokenizer missing":
        (target / "t5" / "tokenizer.json").unlink()
    elif kind == "longer than the encoder reads":
        config.write_text(json.dumps(fields | {"max_seq_length": 128}))
    else:
        assert kind == "of another embedder"
        path = target / "corrector" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"embedder_model_name": EMBEDDERS[384]}))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "inversion do not fit"),
        ("tensor missing", r"they lack embedding_transform\.3\.bias"),
        ("tensor unknown", r"they have unknown tensors embedding_transform\.9\.bias"),
        ("tied tensors apart", "two values for the tied tensors"),
        ("pickled", "pickled weights are refused"),
        ("other config", "size mismatch"),
        ("config missing", r"inversion/config\.json cannot be read"),
        ("config field missing", "lacks the field 'num_repeat_tokens'"),
        ("tokenizer missing", "t5 holds no tokenizer"),
        ("longer than the encoder reads", "trained on 128 tokens, but the encoder gtr-t5-base reads 32"),
        ("of another embedder", "inversion inverts those of gtr-t5-base"),
    ],
)
def test_checkpoint_that_is_not_whole_is_refused(folder, gtr, tmp_path, kind, message):
    target = copied(folder, tmp_path / "spoilt")
    damage(target, kind)
    with pytest.raises(InputError, match=message):
        Vec2TextDecoder(str(target), "cpu", 1, gtr)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"embedder_model_name": "gte_base"},
            "'gte_base' is not an encoder recipe; expected gtr_base, sentence-transformers/",
        ),
        ({"embedder_model_name": "/some/folder"}, "'/some/folder' is not an encoder recipe"),
        ({"embedder_model_api": "text-embedding-ada-002"}, "remote embedder 'text-embedding-ada-002'"),
    ],
)
def test_embedder_without_a_recipe_is_refused_by_name(folder, tmp_path, fields, message):
    target = copied(folder, tmp_path / "other")
    path = target / "inversion" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(InputError, match=message):
        Vec2TextDecoder(str(target))


def test_embedders_become_our_recipes():
    name = vec2text_checkpoint._encoder_name
    for embedder, recipe in (
        ("gtr_base", "gtr-t5-base"),
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
        ("sentence-transformers/all-MiniLM-L12-v2", "sentence-transformers:sentence-transformers/all-MiniLM-L12-v2"),
    ):
        assert name(Path("x"), SimpleNamespace(embedder_model_name=embedder, embedder_model_api=None)) == recipe


@pytest.mark.parametrize("name", ["/no/such/folder", "gtr-large", ""])
def test_name_that_is_no_checkpoint_is_refused_with_what_is(name):
    with pytest.raises(InputError, match="expected 'gtr-base' or a folder with inversion/ in it"):
        load_decoder(f"vec2text:{name}")
