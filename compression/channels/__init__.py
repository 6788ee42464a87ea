"""Which channels of a network hang together, what they are worth, and the network without some."""

from compression.channels.choice import Choice, check_fraction, choose, reach
from compression.channels.costs import Cost, Count, Counter, Term
from compression.channels.cutting import cut, zero
from compression.channels.following import follow
from compression.channels.scores import Criterion, scores_of
from compression.channels.units import Width, free_channels, kept_reasons, widths_of
from compression.channels.walk import Channels, Product

__all__ = [
    "Channels",
    "Choice",
    "Cost",
    "Count",
    "Counter",
    "Criterion",
    "Product",
    "Term",
    "Width",
    "check_fraction",
    "choose",
    "cut",
    "follow",
    "free_channels",
    "kept_reasons",
    "reach",
    "scores_of",
    "widths_of",
    "zero",
]
