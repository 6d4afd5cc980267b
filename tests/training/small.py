"""Settings of a training that takes a second."""

from __future__ import annotations

from splatfix.restoration.nafnet.network import NetworkConfig
from splatfix.training.config import TrainConfig, TrainTrackingConfig
from splatfix.training.data import DataConfig
from splatfix.training.nafnet import NafnetInputs

NETWORK = NetworkConfig(width=8, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))
INPUTS = NafnetInputs(NETWORK)
CONFIG = TrainConfig(
    network=NETWORK,
    data=DataConfig(batch_size=4, patch_px=24, shuffle_buffer=8, samples_per_visit=4, validation_pairs=3),
    steps=6,
    segment_steps=3,
    validate_every=1,
    learning_rate=3e-3,
    warmup_steps=2,
    ema_decay=0.9,
    device="cpu",
    tracking=TrainTrackingConfig(enabled=False),
)
