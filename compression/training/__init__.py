"""The training loop that the baseline, fine-tuning and distillation share, and its data."""

from compression.training.batches import Feed
from compression.training.checks import check_labels
from compression.training.evaluation import BATCH_SIZES, correct_images, predict, scores
from compression.training.inputs import example_of, input_batches, pairs_of
from compression.training.loop import EpochReport, feed_of, fit, loss_of
from compression.training.metrics import (
    F1,
    MEAN_ABSOLUTE_ERROR,
    MEAN_IOU,
    TOP_1,
    Metric,
    top_k,
)
from compression.training.recipe import Recipe, has_bfloat16
from compression.training.run import Loss
from compression.training.sharding import is_sharded, shard, whole_weights, write_parts
from compression.training.sources import AnySplit, Labelled, as_split
from compression.training.split import Split
from compression.training.streamed import StreamedSplit

__all__ = [
    "BATCH_SIZES",
    "F1",
    "MEAN_ABSOLUTE_ERROR",
    "MEAN_IOU",
    "TOP_1",
    "AnySplit",
    "EpochReport",
    "Feed",
    "Labelled",
    "Loss",
    "Metric",
    "Recipe",
    "Split",
    "StreamedSplit",
    "as_split",
    "check_labels",
    "correct_images",
    "example_of",
    "feed_of",
    "fit",
    "has_bfloat16",
    "input_batches",
    "is_sharded",
    "loss_of",
    "pairs_of",
    "predict",
    "scores",
    "shard",
    "top_k",
    "whole_weights",
    "write_parts",
]
