"""MT-NoGNet: shared encoder, deformation and texture decoders, warp and losses."""

from nognet.network.build import build_network
from nognet.network.losses import Batch, loss_terms, total_loss
from nognet.network.model import MTNoGNet
from nognet.network.prediction import DeepPrediction, Prediction
from nognet.network.warp import folded_fraction, jacobian_determinant, warp

__all__ = [
    "Batch",
    "DeepPrediction",
    "MTNoGNet",
    "Prediction",
    "build_network",
    "folded_fraction",
    "jacobian_determinant",
    "loss_terms",
    "total_loss",
    "warp",
]
