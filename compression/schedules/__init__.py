"""Schedules: compression that goes on within a training, and a training that a teacher helps.

Each is one function on the training loop `fit`: a network in, a new one in eval mode out. Equal
recipes are equal work: a schedule takes no step more than `fine_tune` by the same recipe.
"""

from compression.schedules.epochs import train_between
from compression.schedules.gradual import prune_gradually
from compression.schedules.iterative import prune_iteratively
from compression.schedules.learned import learn_pruned, learn_shared

__all__ = [
    "learn_pruned",
    "learn_shared",
    "prune_gradually",
    "prune_iteratively",
    "train_between",
]
