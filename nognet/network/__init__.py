"""MT-NoGNet: shared encoder, deformation and texture decoders, warp and losses."""

from nognet.network.batch import Batch, Prior
from nognet.network.build import build_network
from nognet.network.losses import loss_terms, total_loss
from nognet.network.model import MTNoGNet
from nognet.network.prediction import AttentionMap, DeepPrediction, Prediction
from nognet.network.warp import warp

__all__ = [
    "AttentionMap",
    "Batch",
    "DeepPrediction",
    "MTNoGNet",
    "Prediction",
    "Prior",
    "build_network",
    "loss_terms",
    "total_loss",
    "warp",
]
