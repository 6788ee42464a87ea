"""Embeddings of codes beside float32: `pytest benchmarks/test_embedding.py -m integer`."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.layer_speed import Kind, time_layer
from benchmarks.timing.clock import CLOCK
from compression.integer import native
from compression.quantization import quantize_weights

ROWS, COLUMNS = (1_000, 50_000), (64, 300, 768)
"""Vocabularies of characters and of a language, and the widths of a classifier, word2vec and BERT."""
TOKENS = {1: 16, 32: 128}
"""Of each text, by how many texts there are at once."""
KINDS: dict[str, Kind] = {
    "int8": (native.EMBEDDING_KERNEL, partial(quantize_weights, num_bits=8)),
    "int4": (native.EMBEDDING_KERNEL, partial(quantize_weights, num_bits=4, group_size=64)),
}
AT_LEAST = 1.0
"""Of float32's speed, for one text."""
BUDGET_S = 0.6

pytestmark = [pytest.mark.integer, pytest.mark.benchmark(timer=CLOCK)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", TOKENS, ids="texts{}".format)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_embedding(
    benchmark: Any, request: Any, rows: int, columns: int, texts: int, kind: str
) -> None:
    torch.manual_seed(0)
    model, tokens = nn.Embedding(rows, columns), torch.randint(rows, (texts, TOKENS[texts]))
    time_layer(
        benchmark, request, KINDS[kind], model, tokens, batch_size=texts, budget_s=BUDGET_S,
        technique=f"embedding-{rows}x{columns}-{kind}", target=AT_LEAST if texts == 1 else None,
    )  # fmt: skip
