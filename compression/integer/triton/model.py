"""The Triton executor: a lowered network as launches of a few kernels, captured in a CUDA graph."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from compression.errors import CompressionError
from compression.integer.agreement import CodesOf, codes_by_name
from compression.integer.codes import unsigned
from compression.integer.shapes import shapes_and_moves
from compression.integer.steps import Buffers, Layout, Lowering, Target
from compression.integer.triton.arguments import pixel_bytes, triton_weights
from compression.integer.triton.config import Config
from compression.integer.triton.launch import Launch
from compression.integer.triton.tuning import tune
from compression.modes import ExecutorModel
from compression.quantization import StaticQuantizedModel

TARGET = Target("triton", 0, triton_weights, slices=True)
COMPUTE_CAPABILITY = (8, 0)
"""The first whose tensor cores Triton gives int8 products to."""
COPIED_BYTES = 2**22
"""Inputs up to so large are copied for the graph: that is cheaper than a launch of its own."""


class TritonModel(ExecutorModel):
    """Runs int8 codes from the first layer to the last on a GPU's int8 tensor cores.

    Batches of the size that it was made for replay a CUDA graph, unless their prediction is itself
    being captured; others are launched kernel by kernel. On the CPU Triton's interpreter
    runs the same kernels, to test them.
    """

    def __init__(
        self,
        lowering: Lowering,
        inputs: Sequence[int],
        device: torch.device,
    ) -> None:
        """Take over the steps, whose memory they keep; `inputs` is the shape of one image."""
        super().__init__()
        self.launches = [Launch(step, device) for step in lowering.steps]
        self.device, self.images = device, lowering.layout.buffers.images
        self._layout = lowering.layout
        self._inputs, self._outputs = torch.Size(inputs), lowering.outputs
        self._lock = threading.Lock()  # the memory is one prediction's at a time
        self._graph: torch.cuda.CUDAGraph | None = None
        self._captured: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Any:
        """Return real outputs of real inputs on the device, any number of images."""
        if inputs.shape[1:] != self._inputs or inputs.device != self.device:
            raise CompressionError(
                f"this executor was made for inputs (N, {', '.join(map(str, self._inputs))}) on "
                f"{self.device}, found {tuple(inputs.shape)} on {inputs.device}; deploy it again"
            )
        images = inputs.float().contiguous()
        outputs = self._empty(len(images))
        parts = zip(images.split(self.images), outputs.split(self.images), strict=True)
        with self._lock, on_device(self.device):
            for part, out in parts if len(images) else ():
                self._predict(part, out)
        return self._outputs.structured(outputs)

    def _empty(self, images: int) -> Tensor:
        """Return memory for real outputs, a row for each image."""
        shape = (images, self._outputs.numbers)
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    @torch.inference_mode(False)  # its inputs are written in any mode later
    def capture(self) -> None:
        """Capture the network in a CUDA graph for whole batches; inputs too large to copy stay out.

        The kernels must have run before: a capture compiles nothing.
        """
        shape = (self.images, *self._inputs)
        copied = 4 * torch.Size(shape).numel() <= COPIED_BYTES
        inputs = torch.zeros(shape if copied else (0,), dtype=torch.float32, device=self.device)
        outputs = self._empty(self.images)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._launch(self.launches[0 if copied else 1 :], inputs, outputs)
        self._graph, self._captured = graph, (inputs, outputs)

    def codes_of(self, inputs: Tensor) -> CodesOf:
        """Predict, and return what tells each node's codes; of a model made with `keep` only."""
        self(inputs.to(self.device))
        return codes_by_name(self.codes())

    def codes(self) -> dict[str, Tensor]:
        """Return each node's codes, plus 128, in the latest batch; of a model made with `keep` only."""
        codes = self._layout.codes(self.images).items()
        return {node.name: unsigned(each).cpu() for node, each in codes}

    def convolutions(self) -> list[Launch]:
        """Return the launches that multiply on tensor cores."""
        return [launch for launch in self.launches if launch.packed is not None]

    def _predict(self, inputs: Tensor, outputs: Tensor) -> None:
        whole = len(inputs) == self.images
        if not whole or self._captured is None or torch.cuda.is_current_stream_capturing():
            self._launch(self.launches, inputs, outputs)
            return
        assert self._graph is not None
        held, result = self._captured
        if len(held):
            held.copy_(inputs)
        else:
            self._launch(self.launches[:1], inputs, outputs)
        self._graph.replay()
        outputs.copy_(result)

    def _launch(self, launches: Sequence[Launch], inputs: Tensor, outputs: Tensor) -> None:
        images = len(outputs)
        for launch in launches:
            launch(images, inputs, outputs)


@torch.no_grad()
def lower_triton(
    model: StaticQuantizedModel,
    example: Tensor,
    *,
    keep: bool = False,
    config: Config | None = None,
) -> TritonModel:
    """Return `model` for inputs shaped like `example`, on its device, compiled for its batch size.

    On a GPU each convolution tries several tiles and keeps the fastest, unless `config` is given.
    `keep` spares each value's memory, so that its codes can be looked at. UnsupportedTypeError names
    a layer that has no kernel.
    """
    device = example.device
    shapes, moves = shapes_and_moves(model, example)
    buffers = Buffers(max(1, len(example)), torch.int8, device)
    layout = Layout(model.network, shapes, moves, buffers, keep=keep, pixel=pixel_bytes)
    lowering = Lowering(layout, TARGET)
    lowering.lower()
    lowered = TritonModel(lowering, example.shape[1:], device)
    for launch in lowered.convolutions() if config is not None else ():
        launch.config = config or launch.config
    if device.type == "cuda":
        _prepare(lowered, example, tuned=config is None)
    return lowered


def _prepare(lowered: TritonModel, example: Tensor, *, tuned: bool) -> None:
    """Compile the kernels, choose the tiles, and capture the graph."""
    with on_device(lowered.device):
        lowered(example)  # real codes: zeros multiply faster
        outputs = lowered._empty(len(example))
        if tuned:
            for launch in lowered.launches:
                tune(launch, example, outputs)
            lowered(example)
        torch.cuda.synchronize(lowered.device)
        lowered.capture()


def missing() -> str | None:
    """Say what the machine lacks for the Triton executor, None where it can run."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= COMPUTE_CAPABILITY:
        return None
    return "executor triton needs an NVIDIA GPU of compute capability 8.0 or more"


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Make a GPU the current one: that is where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
