"""Distillation: a student learns from a teacher, by one of the losses of this room."""

from compression.distillation.attention import AttentionTransfer, attention_distance
from compression.distillation.correlation import Dist, correlation_distance
from compression.distillation.decoupled import Decoupled, decoupled_divergence
from compression.distillation.hinton import Hinton, distillation_loss
from compression.distillation.networks import distill
from compression.distillation.outputs import MeanSquared, names_classes, output_distance
from compression.distillation.standardized import Standardized, standardized_divergence
from compression.distillation.taught import HINTON, Distillation, taught

__all__ = [
    "HINTON",
    "AttentionTransfer",
    "Decoupled",
    "Dist",
    "Distillation",
    "Hinton",
    "MeanSquared",
    "Standardized",
    "attention_distance",
    "correlation_distance",
    "decoupled_divergence",
    "distill",
    "distillation_loss",
    "names_classes",
    "output_distance",
    "standardized_divergence",
    "taught",
]
