"""Labels of channels: which hang together, and which must stay and why."""

import torch
from torch import Tensor

FIXED = 0
"""The label of a channel that nobody made: of the network's input, of a border, of a constant."""


class Labels:
    """A union-find over labels, in vectors: a root per label, and a reason where it must stay."""

    def __init__(self) -> None:
        """Hold FIXED only."""
        self._root = torch.zeros(1, dtype=torch.long)
        self._reason = torch.zeros(1, dtype=torch.long)  # per label; -1 is none
        self._reasons = ["its channels are those of the network's inputs"]

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(self._root)

    def fresh(self, count: int) -> Tensor:
        """Return `count` new labels."""
        found = torch.arange(len(self), len(self) + count)
        self._root = torch.cat([self._root, found])
        self._reason = torch.cat([self._reason, torch.full((count,), -1)])
        return found

    def copy(self) -> "Labels":
        """Return labels of their own, to try something out."""
        copied = Labels()
        copied._root, copied._reason = self._root.clone(), self._reason.clone()
        copied._reasons = list(self._reasons)
        return copied

    def become(self, other: "Labels") -> None:
        """Take over what another one found."""
        self._root, self._reason, self._reasons = other._root, other._reason, other._reasons

    def roots(self, labels: Tensor) -> Tensor:
        """Return the root of each label, in the shape of `labels`."""
        return self._root[labels]

    def movable(self, labels: Tensor) -> Tensor:
        """Return the root of each label that may go, FIXED for the others."""
        return torch.where(self.frozen()[labels] < 0, self._root[labels], FIXED)

    def unite(self, first: Tensor, second: Tensor, reason: str) -> None:
        """Let the labels of two tensors of one shape hang together, element by element.

        What meets FIXED stays, for `reason`.
        """
        fixed = (first == FIXED) | (second == FIXED)
        if bool(fixed.any()):
            self.freeze(torch.cat([first[fixed], second[fixed]]), reason)
            first, second = first[~fixed], second[~fixed]
        while True:
            a, b = self._root[first], self._root[second]
            apart = a != b
            if not bool(apart.any()):
                return
            low, high = torch.minimum(a, b)[apart], torch.maximum(a, b)[apart]
            parent = torch.arange(len(self))
            parent.scatter_reduce_(0, high, low, "amin")
            while not torch.equal(shorter := parent[parent], parent):
                parent = shorter
            self._root = parent[self._root]

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Note that these must stay, for `reason`, unless another one is known."""
        labels = labels.reshape(-1)
        labels = labels[self._reason[labels] < 0]
        if len(labels):
            self._reason[labels] = len(self._reasons)
            self._reasons.append(reason)

    def frozen(self) -> Tensor:
        """Return for each label the number of the reason of its root, -1 where it may go."""
        worst = torch.full((len(self),), -1)
        worst.scatter_reduce_(0, self._root, self._reason, "amax")
        return worst[self._root]

    def reason(self, number: int) -> str:
        """Return the reason of a number that `frozen` gave."""
        return self._reasons[number]
