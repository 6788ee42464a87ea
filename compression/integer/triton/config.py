"""How a convolution is cut into programs, and which cuts are tried."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """A program's tile of rows, channels and bytes of a window, and how many share one tile."""

    block_m: int
    block_n: int
    block_k: int
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 4


LARGE = (
    Config(256, 128, 128, num_warps=8, num_stages=3),
    Config(128, 128, 128, num_warps=8, num_stages=4),
    Config(128, 128, 64, num_warps=4, num_stages=4),
    Config(256, 64, 64, num_warps=8, num_stages=4),
    Config(128, 64, 128, num_warps=4, num_stages=4),
    Config(128, 64, 64, num_warps=4, num_stages=5),
    Config(128, 64, 32, num_warps=4, num_stages=5),
)
"""For the many rows of a large batch."""

SMALL = (
    Config(64, 64, 128, num_warps=4, num_stages=5),
    Config(64, 64, 64, num_warps=4, num_stages=5),
    Config(64, 32, 128, num_warps=4, num_stages=5),
    Config(64, 32, 32, num_warps=4, num_stages=5),
    Config(64, 64, 128, splits=2, num_warps=4, num_stages=5),
    Config(64, 64, 128, splits=4, num_warps=4, num_stages=5),
    Config(64, 32, 128, splits=4, num_warps=4, num_stages=5),
    Config(64, 32, 128, splits=8, num_warps=4, num_stages=5),
    Config(16, 64, 128, splits=8, num_warps=4, num_stages=5),
)
"""For the few rows of a small one: more programs, more of them to a tile."""

DEFAULT = Config(64, 64, 64)
FEW_ROWS, MANY_ROWS = 2_048, 16_384
"""Beyond the first a large tile is tried, up to the second a small one."""
MULTIPROCESSORS = 132
"""Of an H100: sharing a tile pays where there are fewer tiles than that."""


def candidates(rows: int, channels: int, runs: int, run_bytes: int) -> list[Config]:
    """Return the configurations worth trying for `rows` x `channels` of sums over a window's runs."""
    few, many = rows <= MANY_ROWS, rows > FEW_ROWS
    chosen = (*(LARGE if many else ()), *(SMALL if few else ()))
    return [c for c in chosen if _worth(c, rows, channels, runs, run_bytes)] or [DEFAULT]


def _worth(config: Config, rows: int, channels: int, runs: int, run_bytes: int) -> bool:
    if config.block_n >= 2 * max(channels, 32) or config.block_k >= 2 * max(run_bytes, 32):
        return False
    tiles = -(-rows // config.block_m) * -(-channels // config.block_n)
    blocks = runs * -(-run_bytes // config.block_k)
    return config.splits == 1 or (tiles < MULTIPROCESSORS and blocks >= 2 * config.splits)
