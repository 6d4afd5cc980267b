"""Small networks with random weights, and their checkpoints."""

from __future__ import annotations

import torch

from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig

SMALL = NetworkConfig(width=8, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))


def random_network(seed: int = 0) -> GuidedNet:
    """A small network that changes its input visibly."""
    torch.manual_seed(seed)
    network = GuidedNet(SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network
