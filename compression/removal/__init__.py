"""Channels that are gone: networks of smaller layers, within a budget."""

from compression.removal.networks import remove_channels

__all__ = ["remove_channels"]
