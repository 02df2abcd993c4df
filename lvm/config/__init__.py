"""Every setting of the pipeline, typed, with its bounds and its meaning; presets; and the registries that settings choose from.

`lvm settings` lists them. They are set by `--preset NAME`, `--config FILE.yaml` and `--set FIELD=VALUE`, in this order; see
`lvm.config.settings`. Configurations are frozen and refuse unknown fields. They are logged with a run and stored in its checkpoint.
"""

from lvm.config.base import Config, parse, read_versioned
from lvm.config.data import EXCLUDED_BEFORE, FEWEST_TOKENS, ChunkerConfig, SplitConfig
from lvm.config.decoder import DecoderTrainConfig, InverterConfig
from lvm.config.gates import GateThresholds
from lvm.config.presets import PRESETS
from lvm.config.registry import ARCHITECTURES, BASELINES, ENCODERS, GATES, LOSS_TERMS, SOURCES, Registry
from lvm.config.serving import ServingConfig
from lvm.config.settings import Settings, read_settings, train_config
from lvm.config.train import LossConfig, ModelConfig, SamplerConfig, TrainConfig

__all__ = [
    "ARCHITECTURES",
    "BASELINES",
    "ENCODERS",
    "EXCLUDED_BEFORE",
    "FEWEST_TOKENS",
    "GATES",
    "LOSS_TERMS",
    "PRESETS",
    "SOURCES",
    "ChunkerConfig",
    "Config",
    "DecoderTrainConfig",
    "GateThresholds",
    "InverterConfig",
    "LossConfig",
    "ModelConfig",
    "Registry",
    "SamplerConfig",
    "ServingConfig",
    "Settings",
    "SplitConfig",
    "TrainConfig",
    "parse",
    "read_settings",
    "read_versioned",
    "train_config",
]
