"""One file a model, whose size is the size that is reported.

The container is safetensors (its specification: 8 bytes of header length, little-endian; a JSON
header; the tensors' bytes). Its metadata has one key, "dnn-compression", with this JSON:

    {"version": 1,
     "sha256": of the whole file, these 64 digits taken as zeros,
     "structure": how the network differs from the float one (quantization.structure_of),
     "tensors": {state-dict name: {"encoding": "dense" | "sparse" | "packed" | "alias",
                                   "dtype": "float32", "shape": [64, 3, 7, 7],
                                   "bits": codes of 2 to 8 bits, "of": an alias's name}}}

A dense tensor stands under its own name. A sparse one stands as NAME#mask (a bit an element, set
where its bit pattern is not all zeros) and NAME#values (those elements in order). A packed one
stands as NAME#codes (compression.bits). A tied tensor is stored once, and its other names are
aliases. Each tensor takes the smallest of the encodings, all of them lossless.
"""

from compression.storage.checkpoint import load_checkpoint
from compression.storage.file import contents, load, save

__all__ = ["contents", "load", "load_checkpoint", "save"]
