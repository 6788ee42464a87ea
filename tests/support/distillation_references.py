"""The losses of distillation in float64 numpy, position by position, as their papers write them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def softmax(z: Numbers) -> Numbers:
    e = np.exp(z - z.max())
    return e / e.sum()


def kl(p: Numbers, q: Numbers) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


def hinton(s: Numbers, t: Numbers, labels: Sequence[int], temperature: float) -> float:
    parts = [
        kl(softmax(b / temperature), softmax(a / temperature)) for a, b in zip(s, t, strict=True)
    ]
    return temperature**2 * float(np.mean(parts))


def standardized(s: Numbers, t: Numbers, labels: Sequence[int], temperature: float) -> float:
    s, t = ((z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True) for z in (s, t))
    return hinton(s, t, labels, temperature)


def decoupled(
    s: Numbers, t: Numbers, labels: Sequence[int], temperature: float, alpha: float, beta: float
) -> float:
    total = 0.0
    for a, b, label in zip(s / temperature, t / temperature, labels, strict=True):
        q, p = softmax(a), softmax(b)
        pairs = [np.array([x[label], np.delete(x, label).sum()]) for x in (p, q)]
        others = [softmax(np.delete(x, label)) for x in (b, a)]
        total += alpha * kl(*pairs) + beta * kl(*others)
    return temperature**2 * total / len(labels)


def dist(
    s: Numbers, t: Numbers, labels: Sequence[int], temperature: float, beta: float, gamma: float
) -> float:
    q, p = (np.array([softmax(z / temperature) for z in x]) for x in (s, t))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    return float(temperature**2 * (beta * inter + gamma * intra))


def attention(s: Numbers, t: Numbers) -> float:
    maps = []
    for x in (s, t):
        squares = (x**2).mean(1).reshape(len(x), -1)
        maps.append(squares / np.sqrt((squares**2).sum(1, keepdims=True)))
    return float(((maps[0] - maps[1]) ** 2).mean())
