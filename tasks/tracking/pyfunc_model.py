"""The model as MLflow loads it, from code and safetensors, without pickle.

MLflow runs this file when it loads the model; `set_model` at the end names the class to build.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from lvm.models.checkpoint import load_checkpoint


class NextChunk(PythonModel):
    """Predicts `y_dec` (the default) or `y_cos` [N, D] from contexts [N, T, D]."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the checkpoint from the artifacts. The loader first reproduces its golden predictions."""
        self.model = load_checkpoint(Path(context.artifacts["config.json"]).parent, torch.device("cpu")).model

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Predict the next chunk's embedding. `params["output_type"]` is 'decoder' or 'cosine'; `ValueError` for anything else."""
        output = (params or {}).get("output_type", "decoder")
        if output not in ("decoder", "cosine"):
            raise ValueError(f"output_type {output!r}: expected 'decoder' or 'cosine'")
        with torch.inference_mode():
            y_dec, y_cos = self.model(torch.from_numpy(np.asarray(model_input, np.float32)), return_both=True)
        return (y_dec if output == "decoder" else y_cos).numpy()


set_model(NextChunk())
