"""The fastest executor of a statically quantized network that runs here and predicts right."""

import logging
import warnings
from typing import Any

from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer.batch_axis import images_first
from compression.integer.executors import EXECUTORS, device_of, lacking, preferred
from compression.integer.layers import has_coded_layers, lower_layers
from compression.integer.verification import Verification, first_line
from compression.quantization import (
    DynamicQuantizedLinear,
    DynamicQuantizedRecurrent,
    StaticQuantizedModel,
    WeightQuantizedLayer,
    WeightQuantizedRecurrent,
)
from compression.training import example_of

log = logging.getLogger(__name__)

SLOW = (
    "no integer kernels here run the network ({}): the reference executor predicts the same, slower "
    "than in float32; export_onnx writes most networks as a file that OpenVINO and ONNX Runtime run on "
    "other machines"
)
"""What a user gets on a machine, or with a network, that no executor takes."""
SLOW_LAYERS = (
    "no integer kernels here run layers of quantize_dynamic ({}): they predict the same, slower than "
    "in float32"
)
REAL_LAYERS = (
    "no integer kernels here unpack the weights of quantize_weights ({}): they are real numbers, with "
    "float32's time and memory"
)


def deploy(
    model: nn.Module, example: Any, *, executor: str | None = None, verify: bool = True
) -> nn.Module:
    """Return what predicts inputs shaped like `example` here: `model` on integer kernels.

    `example` is a batch of inputs; of a Dataset the first is one, of a DataLoader its first batch.
    `executor` names one of EXECUTORS: "native", "onednn", "openvino" and "onnxruntime" on the CPU,
    "triton" on an NVIDIA GPU (the table in README.md beside this file says what each is and needs). By
    default it is "triton" on a GPU, else the first of "native" and "onednn" that can run the model.
    `model` comes back, with a RuntimeWarning that says what each executor lacks, where none can: it
    predicts the same, slower than in float. Of a network that quantize_dynamic or quantize_weights
    made, a copy comes back whose layers run on compiled kernels ("native", on the CPU in float32):
    linear and recurrent ones of quantize_dynamic; those of quantize_weights, which unpack weights of 2
    to 8 bits, where the example gives a layer at most 64 rows, or sequences, at once; and embeddings,
    of which the rows that are looked up are unpacked. The rest of quantize_weights, embeddings
    excepted, is dequantized once, convolutions too, and takes the memory of real numbers. The example
    of such a network may be a tuple of inputs. Other networks come back as they are.
    CompressionError for an executor that is unknown, is not there or cannot run the model, and for an
    example that the model cannot take. Where the machine lacks what a faster executor needs (a C
    compiler), a RuntimeWarning says so.

    What is returned has predicted the example as the reference executor does, within the tolerance of
    its row in EXECUTORS, or layer by layer. An executor that does not is left out with a RuntimeWarning
    that names the layer; the next one is returned, `model` at last. `verify=False` skips that.

    >>> from compression import quantize_static
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> deploy(quantize_static(net, torch.randn(16, 4)), torch.randn(1, 4))(torch.randn(3, 4)).shape
    torch.Size([3, 2])
    """
    example = example_of(example)
    if executor in (None, "native") and has_coded_layers(model):
        return _deploy_layers(model, example, executor, verify=verify)
    check_example(model, example)
    place = _place(model, example, executor)
    if place is None or not isinstance(model, StaticQuantizedModel):
        return model
    known = images_first(model, example)
    verification = Verification(known, example if verify else example[:1])
    left_out, refusals, lacked = list[str](), list[str](), list[str]()
    for name in _candidates(executor, place):
        try:
            lowered, reason = try_executor(name, known, example, verification if verify else None)
        except CompressionError as error:
            if name == executor:
                raise
            log.info("not on the %s executor: %s", name, error)
            refusals.append(str(error))
            lacked += [reason] if (reason := lacking(name)) else []
            continue
        if reason is None:
            break
        left_out.append(f"executor {name} {reason}")
    else:
        lowered, name = model, "reference"
        if not left_out:
            warnings.warn(
                SLOW.format("; ".join(dict.fromkeys(refusals))), RuntimeWarning, stacklevel=2
            )
    if told := left_out if name == "reference" else [*lacked, *left_out]:
        message = f"{'; '.join(told)}: the {name} executor runs instead"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return lowered


def _deploy_layers(
    model: nn.Module, example: Any, executor: str | None, *, verify: bool
) -> nn.Module:
    reason = lacking("native")
    if executor is not None and reason:
        raise CompressionError(reason)
    lowered, wrong = lower_layers(model, example, verify=verify)
    if reason and (message := _without_kernels(model)):
        warnings.warn(message.format(reason), RuntimeWarning, stacklevel=3)
    if wrong:
        message = f"{'; '.join(wrong)}: it runs as it was quantized instead"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return lowered


def _without_kernels(model: nn.Module) -> str | None:
    """Return what is to be said of layers that would run on kernels, None where there are none."""
    layers = list(model.modules())
    if any(isinstance(n, DynamicQuantizedLinear | DynamicQuantizedRecurrent) for n in layers):
        return SLOW_LAYERS
    unpacked = any(
        isinstance(n, WeightQuantizedRecurrent)
        or (isinstance(n, WeightQuantizedLayer) and isinstance(n.layer, nn.Linear))
        for n in layers
    )
    return REAL_LAYERS if unpacked else None


def check_example(model: nn.Module, example: Any) -> None:
    """Raise UnsupportedTypeError for other than one tensor, where a network of codes wants one."""
    if isinstance(model, StaticQuantizedModel) and not isinstance(example, Tensor):
        raise UnsupportedTypeError(
            f"the example must be one tensor of inputs (N, ...), found {type(example).__name__}"
        )


def _place(model: nn.Module, example: Tensor, executor: str | None) -> str | None:
    """Return the kind of device to run on, None for a model that stays as it is."""
    if executor is None:
        return example.device.type if isinstance(model, StaticQuantizedModel) else None
    if executor not in EXECUTORS:
        raise CompressionError(
            f"executor must be one of {', '.join(EXECUTORS)}, found {executor!r}"
        )
    place = device_of(executor)
    if not isinstance(model, StaticQuantizedModel) or example.device.type != place:
        raise UnsupportedTypeError(
            f"executor {executor} runs statically quantized networks on {place}, found "
            f"{type(model).__name__} on {example.device.type}; quantize_static makes one"
        )
    if reason := lacking(executor):
        raise CompressionError(reason)
    return place


def try_executor(
    executor: str,
    model: StaticQuantizedModel,
    example: Tensor,
    verification: Verification | None = None,
) -> tuple[nn.Module, str | None]:
    """Return a network on an executor, and how it differs from the reference, None for not at all.

    CompressionError where the executor is not there, or cannot run the network.
    """
    if reason := lacking(executor):
        raise CompressionError(reason)
    row = EXECUTORS[executor]
    try:
        lowered = row.lower(model, example)
    except CompressionError:
        raise
    except Exception as error:  # whatever a compiler raises
        return model, f"fails ({first_line(error)})"
    return lowered, None if verification is None else verification.disagreement(lowered, row)


def _candidates(executor: str | None, place: str) -> tuple[str, ...]:
    """Return the executors to try, in turn: what follows an executor asked for is slower."""
    ours = preferred(place)
    if executor is None:
        return ours
    after = ours.index(executor) + 1 if executor in ours else 0
    return executor, *ours[after:]
