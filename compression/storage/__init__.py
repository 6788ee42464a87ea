"""One file per model, whose size is the size that is reported: format 1.

The container is safetensors (container.py): 8 bytes of header length, little-endian; a JSON header
of at most 4 MiB, which names each entry with its dtype, shape and place; the entries' bytes, one
after the other. The header's "__metadata__" has one key, "dnn-compression", with this JSON:

    {"version": 1,
     "sha256": of the whole file, these 64 digits taken as zeros,
     "architecture": {"name": "resnet18-cifar", "num_classes": 10}, where the file names one,
     "structure": how the network differs from the float one (structure.py),
     "tensors": {state-dict name: CRC-32, or a description},
     "joined": small tensors that are coded as one, where the file is entropy-coded:
               {dtype: {"shapes": {name: shape}, "crc32": of all their bytes, "coded": as below}}}

A plain dense tensor stands under its own name, and has only the CRC-32 of its bytes. Another has

    {"encoding": "dense" | "sparse" | "packed" | "clustered" | "alias",
     "dtype": "float32", "shape": [64, 3, 7, 7],
     "crc32": of the tensor's bytes, row-major and little-endian,
     "coded": the streams that are entropy-coded, none where it is absent,
     "index": "mask" (also where it is absent) | "gaps", "values": as "encoding"; of a sparse tensor,
     "bits": of packed codes, 2 to 8,
     "of": the other name of an alias}

and its streams as entries NAME#STREAM, 1-dim. All bits are little-endian (bits.py); elements are
row-major, those of a sparse tensor only the ones whose bit pattern is not all zeros. Joined tensors
follow one another in the stream DTYPE#values.

    stream      of         raw                                  coded (bytes)
    values      dense      numbers of the dtype                 planes.py
    codes       packed     codes (int8) of so many bits         entropy.py, symbols code + 128
    codebook    clustered  the different values                 -
    indices     clustered  into it, ceil(log2(values)) bits     entropy.py
    mask        sparse     a bit per element                    entropy.py, one row and one column
    gaps        sparse     a byte per element: zeros before it, -
                           255: so many and no element yet

Coded codes and indices of a whole tensor are a block of (shape[0], shape[1], the rest) symbols, all
others one of (1, 1, count). A tied tensor is stored once, and its other names are aliases. Each
tensor takes the smallest of the encodings (plan.py), all of them lossless.
"""

from compression.architectures import Architecture
from compression.storage.checkpoint import load_checkpoint
from compression.storage.file import contents, load, save

__all__ = ["Architecture", "contents", "load", "load_checkpoint", "save"]
