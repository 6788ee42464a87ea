"""Channels that are gone: networks of smaller layers, within a budget."""

from compression.removal.networks import remove_channels
from compression.removal.soft import remove_channels_softly

__all__ = ["remove_channels", "remove_channels_softly"]
