"""The one family of errors: each message names the thing, what was expected, what was found.

ValueError
    CompressionError               an input that cannot be used
        UnsupportedTypeError       of a kind that is not supported; a TypeError, too
        CheckpointError            a file
"""


class CompressionError(ValueError):
    """A user's input cannot be used; the message says what to do instead."""


class UnsupportedTypeError(CompressionError, TypeError):
    """A tensor, layer or network is of a kind that the operation is not defined for."""


class CheckpointError(CompressionError):
    """A file is missing, damaged, or not what it claims to be."""
