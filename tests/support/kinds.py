"""Each kind of quantized network, by name."""

import torch

from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from tests.support.nets import images

KINDS = {
    "static": lambda m: quantize_static(m, images()),
    "dynamic": quantize_dynamic,
    "8 bits": lambda m: quantize_weights(m, num_bits=8),
    "4 bits": lambda m: quantize_weights(m, num_bits=4, group_size=8),
    "float16": lambda m: cast(m, torch.float16),
    "bfloat16": lambda m: cast(m, torch.bfloat16),
}
