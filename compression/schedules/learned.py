"""Learning-compression: a network trains towards what a compression of its weights can hold."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compression.clustering.kmeans import Init, check_options, cluster
from compression.clustering.networks import floating_weights, keep_sharing
from compression.distillation import HINTON, Distillation, taught
from compression.layers import copy_model, record_left_out
from compression.pruning import keep_zeros
from compression.schedules.learning import Pace, learn
from compression.schedules.masks import Scope, check_removal, largest_masks
from compression.schedules.multipliers import Compress
from compression.training import Labelled, Loss, Recipe
from compression.weights import unreached_weights, weights


def learn_pruned(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    amount: float,
    steps: int = 10,
    mu: float | None = None,
    growth: float = 2.0,
    until: float = 0.5,
    scope: Scope = "global",
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy trained by `recipe` towards few nonzero weights, which it has at the end.

    All weights train, and one that was small may come back: the loss + mu/2 |w - theta - lambda/mu|^2
    falls in `steps` learning steps, and after each theta = w - lambda/mu without its smallest `amount`,
    and lambda -= mu (w - theta). The last theta becomes the network's weights; where the training goes
    on, its zeros stay. It reaches what prune_l1_unstructured does.

    amount   fraction of the weights that is zero afterwards, 0 <= amount < 1
    steps    1 to the optimizer steps that they divide
    mu       above 0: the first step's. Each next one's is `growth` (1 or more) times as large, and at
             most 1 / learning_rate. None: the one by which weights go a tenth of their way to theta in
             the first step, steps (1 - momentum) / (10 learning_rate optimizer steps)
    until    above 0 and up to 1: the fraction of the training that the steps divide. At 1 the training
             ends with theta, as in the paper, whose trainings have hundreds of epochs
    scope    "global" ranks the weights of all layers together, and leaves each layer one at least;
             "layer" removes `amount` of each layer
    teacher  helps as in `distill`, by the loss `distillation`; `loss` is that of `fit`

    CompressionError for options out of these ranges, and where no weight of a layer would be left;
    raises what `fit` and `distill` raise. Carreira-Perpinan and Idelbayev, CVPR 2018, after
    arXiv:1707.01209; they take 50 steps, and mu from 1e-3 with a growth of 1.25.

    >>> from compression import Split
    >>> from compression.pruning import sparsity
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=10, batch_size=16, learning_rate=0.1)
    >>> sparsity(learn_pruned(nn.Linear(8, 2), train, recipe, amount=0.75))
    0.75
    """
    pace, learned = Pace(steps, mu, growth, until), copy_model(model)
    reached = weights(learned)
    check_removal(reached, amount, scope)
    tensors = [weight.tensor for weight in reached]

    def compress(values: Sequence[Tensor]) -> list[Tensor]:
        masks = largest_masks(values, amount=amount, scope=scope)
        return [value.masked_fill(~keep, 0) for value, keep in zip(values, masks, strict=True)]

    with taught(learned, teacher, train, recipe, distillation, loss) as goal:
        learn(learned, train, recipe, goal, tensors, compress, pace, keep_zeros)
    record_left_out(learned, unreached_weights(learned, tensors))
    return learned


def learn_shared(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    num_clusters: int = 16,
    init: Init = "linear",
    steps: int = 10,
    mu: float | None = None,
    growth: float = 2.0,
    until: float = 1.0,
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy trained by `recipe` towards few values per layer, which it has at the end.

    As learn_pruned, with theta = k-means of a layer's w - lambda/mu, from the second time on from the
    centroids of the time before. Where the training goes on behind the last theta, the shared values
    train, as in fine_tune_centroids. It reaches what share_weights does, and zeros stay zeros.

    num_clusters  2 to 256 per layer; 0.0 counts where a layer has zeros
    init          where the first k-means starts: "linear", "density" or "random", by recipe.seed
    steps         1 to the optimizer steps that they divide; mu, growth and until as in learn_pruned,
                  but for the default of until: shared values need no training behind theta
    teacher       helps as in `distill`, by the loss `distillation`; `loss` is that of `fit`

    CompressionError for options out of these ranges; raises what `fit` and `distill` raise.
    Carreira-Perpinan and Idelbayev 2017, arXiv:1707.04319.

    >>> from compression import Split
    >>> from compression.clustering import shared_values
    >>> train = Split(torch.randn(32, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=10, batch_size=16, learning_rate=0.1)
    >>> shared_values(learn_shared(nn.Linear(8, 2), train, recipe, num_clusters=4))
    {'': 4}
    """
    check_options(num_clusters, init, recipe.seed, fewest=2)
    pace, learned = Pace(steps, mu, growth, until), copy_model(model)
    tensors = list(floating_weights(learned).values())
    compress = codebooks([t.detach() == 0 for t in tensors], num_clusters, init, recipe.seed)
    with taught(learned, teacher, train, recipe, distillation, loss) as goal:
        learn(learned, train, recipe, goal, tensors, compress, pace, keep_sharing)
    record_left_out(learned, unreached_weights(learned, tensors))
    return learned


def codebooks(zeros: Sequence[Tensor], num_clusters: int, init: Init, seed: int) -> Compress:
    """Return what gives each weight a codebook, warm from the second time on; `zeros` stay 0."""
    known: dict[int, Tensor] = {}

    def compress(values: Sequence[Tensor]) -> list[Tensor]:
        shared = [torch.zeros_like(value) for value in values]
        for i, (value, free) in enumerate(zip(values, [~zero for zero in zeros], strict=True)):
            if not free.any():
                continue
            count = num_clusters if free.all() else num_clusters - 1
            # A cluster that went empty would never come back: then k-means starts anew.
            start = known[i] if i in known and len(known[i]) == count else None
            known[i], indices = cluster(
                value[free], num_clusters=count, init=init, seed=seed, start=start
            )
            shared[i][free] = known[i].to(value.dtype)[indices.long()]
        return shared

    return compress
