"""Weight sharing: a codebook for a tensor first, then networks whose layers take few values.

Scalar k-means (Han, Mao, Dally 2016, arXiv:1510.00149, section 3); with a price on bits, entropy-
constrained quantization (Chou et al. 1989; Choi, El-Khamy, Lee 2017, arXiv:1612.01543). In one
dimension cells are intervals: sorted values with prefix sums give a cell's mean by two searches.
"""

from compression.clustering.kmeans import INITS, MAX_CLUSTERS, cluster, initial_centroids
from compression.clustering.networks import (
    fine_tune_centroids,
    keep_sharing,
    share_weights,
    shared_values,
)

__all__ = [
    "INITS",
    "MAX_CLUSTERS",
    "cluster",
    "fine_tune_centroids",
    "initial_centroids",
    "keep_sharing",
    "share_weights",
    "shared_values",
]
