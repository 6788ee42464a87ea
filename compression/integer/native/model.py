"""The native executor: a network in one call of compiled code."""

import threading
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.agreement import CodesOf, codes_by_name
from compression.integer.codes import OFFSET
from compression.integer.native.bounds import check_bounds
from compression.integer.native.chunks import images_of_chunk, paces
from compression.integer.native.depthwise import pack_filters
from compression.integer.native.library import library
from compression.integer.native.neighbours import side_by_side
from compression.integer.native.step import CStep, c_step
from compression.integer.native.team import Team
from compression.integer.shapes import shapes_and_moves
from compression.integer.steps import Buffers, Layout, Lowering, Target
from compression.modes import ExecutorModel
from compression.quantization import StaticQuantizedModel

KERNEL = "native::vpdpbusd"
"""The name of what multiplies codes, beside those of torch's profiler, which does not see it."""


class NativeModel(ExecutorModel):
    """Runs int8 codes from the first layer to the last in one call, on what instructions.py chooses.

    `kernels_ran` counts, by the name KERNEL, the steps of the latest prediction that multiplied codes,
    as the compiled code counts them: one for a layer, and some for one in groups.
    """

    def __init__(self, lowering: Lowering, inputs: list[int]) -> None:
        """Take over the steps, whose memory they keep; `inputs` is the shape of one image."""
        super().__init__()
        self._library = library()
        images = lowering.layout.buffers.images
        wide = [side_by_side(step) for step in lowering.steps]
        for step in wide:
            check_bounds(step, images)
        steps, kept = zip(
            *map(c_step, wide, paces(wide, images, keep=lowering.layout.keep)), strict=True
        )
        self._steps, self._tensors = (CStep * len(steps))(*steps), kept
        self._layout = lowering.layout
        self._chunk = self._layout.buffers.images
        self._inputs, self._outputs = torch.Size(inputs), lowering.outputs
        self._scratch_each = int(self._library.scratch_bytes(self._steps, len(steps)))
        self._team: Team | None = None
        self._lock = threading.Lock()  # the memory is one prediction's at a time

    def forward(self, inputs: Tensor) -> Any:
        """Return real outputs of real inputs on the CPU, any number of images."""
        if inputs.shape[1:] != self._inputs or inputs.device.type != "cpu" or inputs.is_complex():
            raise CompressionError(
                f"this executor was made for inputs (N, {', '.join(map(str, self._inputs))}) on the "
                f"CPU, found {tuple(inputs.shape)} {inputs.dtype} on {inputs.device}; deploy it for "
                "another size"
            )
        images = inputs.float().contiguous()
        numbers = self._outputs.numbers
        outputs = torch.empty(len(images), numbers, dtype=torch.float32, device="cpu")
        threads = torch.get_num_threads()
        with self._lock:
            if self._team is None or self._team.threads != threads:
                self._team = Team(self._library, len(self._steps), threads, self._scratch_each)
            team = self._team
            layers = self._library.run(
                self._steps, len(self._steps), images.data_ptr(), outputs.data_ptr(),
                team.scratch.data_ptr(), self._scratch_each, len(images), self._chunk,
                self._inputs.numel(), numbers, team.memory.data_ptr(), threads,
            )  # fmt: skip
        self.__dict__["kernels_ran"] = {KERNEL: layers}  # torch's own way of setting it is slow
        return self._outputs.structured(outputs)

    def __deepcopy__(self, _: object) -> NoReturn:
        """Refuse: the steps point into memory that a copy would not have."""
        raise UnsupportedTypeError(
            "NativeModel: a deployed network cannot be copied or compressed; deploy it again, or "
            "compress the network that it was made of"
        )

    def codes_of(self, inputs: Tensor) -> CodesOf:
        """Predict, and return what tells each node's codes; of a model made with `keep` only."""
        self(inputs)
        return codes_by_name(self.codes())

    def codes(self) -> dict[str, Tensor]:
        """Return each node's codes in the latest chunk, by name; of a model made with `keep` only."""
        return {n.name: codes for n, codes in self._layout.codes(self._chunk).items()}


@torch.no_grad()
def lower_native(
    model: StaticQuantizedModel, example: Tensor, *, keep: bool = False
) -> NativeModel:
    """Return `model` for inputs shaped like `example`, any batch size, compiled for this machine.

    `keep` spares each value's memory, so that its codes can be looked at. UnsupportedTypeError names
    a layer that has no kernel; CompressionError says what the machine lacks (a CPU of
    instructions.py, a C compiler).
    """
    tiles = bool(library().uses_amx())
    pack = partial(pack_filters, tiles=tiles)
    with torch.device("cpu"):  # whatever the user's default device is
        shapes, moves = shapes_and_moves(model, example)
        an_image = sum(torch.Size(shape).numel() for shape in shapes.values())
        chunk = len(example) if keep else images_of_chunk(len(example), max(1, an_image))
        buffers = Buffers(max(1, chunk), torch.uint8, torch.device("cpu"))
        lowering = Lowering(
            Layout(model.network, shapes, moves, buffers, keep=keep, in_place=True, planes=tiles),
            Target("native", OFFSET, pack, slices=True),
        )
        lowering.lower()
        return NativeModel(lowering, list(example.shape[1:]))
