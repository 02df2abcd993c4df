"""A decoder on disk is a quarter of its size and almost itself, and a folder that was touched is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.torch import load_file, save_file

from lvm.atomic_io import sha256_file
from lvm.config import DecoderTrainConfig
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding.inverter.folder import FILES, SCALE, dequantize, load_decoder_folder, quantize, read_decoder_config, save_decoder
from lvm.decoding.inverter.model import TIED_TO, InverterModel
from lvm.decoding.inverter.pool import Ragged
from lvm.decoding.inverter.tokens import encode_texts, train_tokenizer
from lvm.errors import InputError
from tests.support.edited import edit_json
from tests.support.tiny_decoder import CPU, Learned, tiny

matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def saved(path: Path, dataset: Dataset, encoder: Encoder) -> tuple[InverterModel, DecoderTrainConfig]:
    """An untrained network and what it was saved with."""
    config = tiny()
    torch.manual_seed(0)
    model = InverterModel(config.model, encoder.recipe.dim).eval()
    model.mean.copy_(torch.from_numpy(dataset.vectors[:100].mean(0)))
    model.scale.fill_(0.05)
    tokenizer = train_tokenizer(dataset.texts(np.arange(500)), config.model.vocabulary)
    digest = dataset.manifest.digest
    save_decoder(path, model, tokenizer, config, encoder.recipe, digest, [digest], {"val/bleu_0_corrections": 1.5}, "# A card\n")
    return model, config


# Quantization


@given(matrices)
@example(np.zeros((2, 3), np.float32))
@example(np.array([[1e-45, -1e-42]], np.float32))
@example(np.array([[3e38, -3e38], [1e-38, 1.0]], np.float32))
def test_no_weight_is_off_by_more_than_half_a_step_of_its_row(values: np.ndarray) -> None:
    weights = {"some.weight": torch.from_numpy(values)}
    stored = quantize(weights)
    assert stored["some.weight"].dtype == torch.int8
    again = dequantize(stored)
    assert list(again) == ["some.weight"]
    step = stored[f"some.weight{SCALE}"].double()[:, None]
    assert torch.all((again["some.weight"].double() - weights["some.weight"].double()).abs() <= step / 2 * (1 + 1e-5))
    largest = weights["some.weight"].double().abs().amax(1)[:, None]
    assert torch.all((step <= largest / 127 * (1 + 1e-6)) | (step < 1.2e-38)), "127 steps reach the row's largest, no more"


def test_what_is_no_matrix_is_stored_as_it_is() -> None:
    weights = {"mean": torch.randn(5), "scale": torch.tensor(0.3), "norm.weight": torch.randn(4)}
    assert {name: value.tolist() for name, value in dequantize(quantize(weights)).items()} == {k: v.tolist() for k, v in weights.items()}


# Saving and loading


def test_loaded_model_is_the_saved_one_within_quantization(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    model, config = saved(tmp_path, dataset, encoder)
    found = load_decoder_folder(tmp_path, CPU)
    assert not found.model.training
    assert torch.equal(found.model.mean, model.mean) and torch.equal(found.model.scale, model.scale)
    texts = dataset.texts(np.arange(32))
    labels = Ragged(encode_texts(found.tokenizer, texts, config.model.max_tokens), CPU).take(torch.arange(32), 24)
    vectors = torch.from_numpy(dataset.vectors[:32].copy())
    with torch.inference_mode():
        before, after = float(model(vectors, labels)), float(found.model(vectors, labels))
        model.load_weights(dequantize(quantize({k: v for k, v in model.state_dict().items() if k not in model.tied})))
        assert float(model(vectors, labels)) == after, "the file holds the quantized weights, nothing else"
    assert after == pytest.approx(before, rel=0.02) and after != before


def test_config_says_what_the_decoder_is(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    model, config = saved(tmp_path, dataset, encoder)
    found = read_decoder_config(tmp_path)
    assert (found.train, found.recipe, found.dataset_digest) == (config, encoder.recipe, dataset.manifest.digest)
    assert (found.held_out, found.measured) == ([dataset.manifest.digest], {"val/bleu_0_corrections": 1.5})
    assert found.parameters == sum({id(p): p.numel() for p in model.parameters()}.values())
    assert found.files == {name: sha256_file(tmp_path / name) for name in FILES}
    assert (tmp_path / "card.md").read_text() == "# A card\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["card.md", "config.json", "model.safetensors", "tokenizer.json"]


def test_weights_are_a_byte_each_and_tied_ones_are_stored_once(learned: Learned) -> None:
    stored = load_file(learned.folder / "model.safetensors")
    assert TIED_TO in stored and not set(InverterModel.tied) & set(stored)
    size, parameters = (learned.folder / "model.safetensors").stat().st_size, read_decoder_config(learned.folder).parameters
    assert size < 1.1 * parameters
    matrices = [tensor for name, tensor in stored.items() if tensor.ndim == 2]
    assert all(tensor.dtype == torch.int8 for tensor in matrices) and sum(map(torch.numel, matrices)) > 0.97 * parameters


def test_saving_over_a_decoder_takes_its_config_away_first(
    dataset: Dataset, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, dataset, encoder)

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("lvm.decoding.inverter.folder.save_file", full)
    with pytest.raises(InputError, match="no space left to write"):
        saved(tmp_path, dataset, encoder)
    with pytest.raises(InputError, match=r"holds no config.json"):
        load_decoder_folder(tmp_path, CPU)


# Folders that are not whole


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", change)


def with_nan(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"parameters": ', '"parameters": NaN, "was": '))


def poisoned(folder: Path) -> None:
    """Weights of another network, and the digest that fits them."""
    weights = load_file(folder / "model.safetensors")
    del weights["t5.decoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors")
    edit(lambda c: c["files"].update({"model.safetensors": sha256_file(folder / "model.safetensors")}))(folder)


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def flip(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        pytest.param(lambda f: (f / "config.json").unlink(), "holds no config.json.*lvm train-decoder --resume", id="no config"),
        pytest.param(cut("config.json"), "config.json is not JSON", id="config cut"),
        pytest.param(lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is not JSON", id="config of bytes"),
        pytest.param(lambda f: (f / "config.json").write_text("[1]"), "config.json: field 'format' must be 1", id="config is a list"),
        pytest.param(edit(lambda c: c.update(format=2)), "config.json: field 'format' must be 1", id="a later format"),
        pytest.param(edit(lambda c: c.update(beam=4)), "unknown field 'beam'", id="unknown field"),
        pytest.param(edit(lambda c: c["train"].update(speed=1)), "unknown field 'train.speed'", id="unknown field of the training"),
        pytest.param(with_nan, "config.json is not JSON", id="NaN"),
        pytest.param(edit(lambda c: c.pop("recipe")), "field 'recipe'", id="no recipe"),
        pytest.param(edit(lambda c: c["train"]["model"].update(width=128)), "weights do not fit config.json", id="another width"),
        pytest.param(edit(lambda c: c["recipe"].update(dim=99)), "weights do not fit config.json", id="another dimension"),
        pytest.param(poisoned, "weights do not fit config.json", id="a weight is missing"),
        *(
            pytest.param(harm, f"{name} is missing, truncated or altered", id=f"{name} {how}")
            for name in FILES
            for how, harm in {"gone": lambda f, n=name: (f / n).unlink(), "cut": cut(name), "flipped": flip(name)}.items()
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_one_error(learned: Learned, tmp_path: Path, harm: Callable[[Path], None], told: str) -> None:
    folder = Path(shutil.copytree(learned.folder, tmp_path / "decoder", ignore=shutil.ignore_patterns("training")))
    load_decoder_folder(folder, CPU)
    harm(folder)
    with pytest.raises(InputError, match=told) as refused:
        load_decoder_folder(folder, CPU)
    assert "config.json" in str(refused.value) or str(folder) in str(refused.value) or "field" in str(refused.value)
