"""A new architecture, without a change to the package.

    python examples/new_architecture.py out

This file is both: a plug-in that registers the architecture, and a script that trains it. Any command or flow knows the architecture
when the environment variable LVM_PLUGINS names the module and Python finds it:

    LVM_PLUGINS=new_architecture PYTHONPATH=examples lvm train DATASET --arch convolution --out out/model
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lvm.config import ARCHITECTURES, ModelConfig

KERNEL = 8
"""Chunks that a layer sees: the current one and the seven before it."""


@ARCHITECTURES.register("convolution")
class ConvolutionTrunk(nn.Module):
    """Residual causal convolutions. Padding only on the left keeps them causal, which every trunk must be."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.dim, config.width)
        self.layers = nn.ModuleList(nn.Conv1d(config.width, config.width, KERNEL) for _ in range(config.layers))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """[B, T, dim] to [B, T, width]."""
        states_BHT = self.project(x_BTD).transpose(1, 2)
        for layer in self.layers:
            states_BHT = states_BHT + F.gelu(layer(F.pad(states_BHT, (KERNEL - 1, 0))))
        return states_BHT.transpose(1, 2)


def lvm(*words: object) -> None:
    """Run one `lvm` command that knows this file."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"LVM_PLUGINS": "new_architecture", "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-m", "lvm", *map(str, words)], check=True, env=environment)


def main() -> None:
    """Run the example."""
    from sample_documents import write_documents

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for everything that is made")
    asked = parser.parse_args()
    dataset, model = asked.root / "dataset", asked.root / "model"

    lvm("extract", "--source", write_documents(asked.root / "documents"), "--out", dataset)
    lvm("train", dataset, "--arch", "convolution", "--out", model, "--set", "model.width=128", "--set", "epochs=5")
    lvm("validate", dataset, "--model", model, "--split", "val", "--decoder", "none")


if __name__ == "__main__":
    main()
