"""FACTS: every fact that a benchmark may record, with its type, unit and meaning.

`record` refuses a fact that is not here, or whose value is of another type. The gate reads saved
runs by the same types. A new fact is one row.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.facts.kinds import (
    COUNT,
    COUNTS,
    DURATIONS,
    FLAG,
    NUMBER,
    NUMBERS,
    OBJECTS,
    POSITIVE,
    POSITIVE_COUNT,
    QUANTITY,
    SHARE,
    SHARES,
    TARGET,
    TEXT,
    TEXTS,
    Kind,
    choice,
)

METRICS = (
    "size", "accuracy", "latency", "cost", "training", "agreement", "layers", "coder",
    "storage-speed", "storage-memory", "removal", "teaching", "score",
)  # fmt: skip
TIMINGS = ("wall", "event", "graph", "best")


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact's type, unit and meaning; `metrics` that record it, all where it names none."""

    kind: Kind
    unit: str
    meaning: str
    metrics: tuple[str, ...] = ()
    nullable: bool = False

    def holds(self, value: Any) -> bool:
        """Tell whether the fact may have this value."""
        return (value is None and self.nullable) or self.kind.holds(value)

    @property
    def expected(self) -> str:
        """The type in words."""
        return f"{self.kind.name} or null" if self.nullable else self.kind.name


_SIZES = ("size", "accuracy", "storage-speed", "storage-memory", "coder", "score")
_STORAGE = ("storage-speed", "storage-memory")
_ROWS = ("size", "accuracy", "latency", "cost", "agreement", "score")
_COUNTED = ("accuracy", "training")
_LATENCY, _ACCURACY, _CODER = ("latency",), ("accuracy",), ("coder",)
_TRAINING, _LAYERS, _AGREEMENT = ("training",), ("layers",), ("agreement",)
_REMOVAL, _TAKES_TIME = ("removal",), ("cost", "training", "removal", "teaching")
_CARD, _EPOCHS = ("latency", "training", "layers"), ("training", "teaching")
_TEACHING, _SCORE = ("teaching",), ("score",)

# fmt: off
FACTS: Mapping[str, Fact] = {
    # What every benchmark says of itself.
    "metric": Fact(choice(*METRICS), "", "what is measured"),
    "technique": Fact(TEXT, "", "the row: a technique, an engine, a network"),
    "device": Fact(choice("cpu", "cuda"), "", "where it ran"),
    "workload": Fact(TEXT, "", "network, data and recipes, by name"),
    "data": Fact(TEXT, "", "the title of the images"),
    "simulated": Fact(FLAG, "", "arithmetic in place of kernels that do not run there: no latency"),
    "target": Fact(TARGET, "that of the metric", "what the row promises", nullable=True),
    "target_met": Fact(FLAG, "", "whether it does; null without a target or evidence", nullable=True),
    # What every metric of a technique's row repeats.
    "family": Fact(TEXT, "", "rows of one line in a figure", _ROWS),
    "size_only": Fact(FLAG, "", "no kernel gains by it there: no latency", _ROWS),
    "in_float": Fact(TEXTS, "", "layers that stay in float, where kernels are claimed", _ROWS),
    "left_out": Fact(TEXTS, "", "tensors that the technique left as they were", _ROWS),
    "epoch_accuracy": Fact(SHARES, "share of images", "validation accuracy per epoch", _ROWS),
    "sweep": Fact(FLAG, "", "a point of the figures, not a promise", _ROWS),
    "amount": Fact(SHARE, "share of weights or filters", "what was pruned, figure 2", _ROWS),
    "macs_share": Fact(SHARE, "share of the baseline's", "MACs asked of removal", _ROWS),
    "pruned": Fact(SHARE, "share of weights", "what was pruned before weights were shared", _ROWS),
    "fine_tuned": Fact(FLAG, "", "whether it was trained after pruning", _ROWS),
    "bit_cost": Fact(QUANTITY, "squared error per bit", "the price of a bit in clustering", _ROWS),
    "temperature": Fact(POSITIVE, "", "of the softmax in distillation", _ROWS),
    "alpha": Fact(SHARE, "", "the teacher's weight in the loss of distillation", _ROWS),
    "lesson": Fact(TEXT, "", "the loss or teacher that a student learns by", _ROWS),
    "seed": Fact(COUNT, "", "added to the recipe's seed: of weights and order", _ROWS),
    # Files.
    "stored_bytes": Fact(POSITIVE_COUNT, "byte", "the saved file", _SIZES),
    "baseline_stored_bytes": Fact(POSITIVE_COUNT, "byte", "the baseline's saved file", _SIZES),
    "contents": Fact(COUNTS, "byte", "what the file consists of", ("size", *_STORAGE)),
    "dense_bytes": Fact(COUNT, "byte", "all tensors in their own types", ("size", *_STORAGE)),
    "parameters": Fact(COUNT, "", "weights of the network", ("size",)),
    "nonzeros": Fact(COUNT, "", "weights that are not zero", ("size",)),
    "macs": Fact(COUNT, "multiply-accumulate", "of a prediction of one image", ("size",)),
    # Accuracy.
    "correct": Fact(COUNT, "image", "test images that were classified correctly", _COUNTED),
    "total": Fact(POSITIVE_COUNT, "image", "test images", (*_COUNTED, "agreement", "score")),
    "correct_images": Fact(TEXT, "bit per image", "which ones: packed, deflated, base64", _ACCURACY),
    "accuracy": Fact(SHARE, "share of images", "correct / total", _COUNTED),
    "baseline_accuracy": Fact(SHARE, "share of images", "that of the baseline", _ACCURACY),
    "drop": Fact(NUMBER, "share of images", "baseline_accuracy - accuracy", _ACCURACY),
    # The score of a workload whose metric is another than top-1.
    "score": Fact(NUMBER, "the metric's; of % a share", "mean over the test examples", _SCORE),
    "score_name": Fact(TEXT, "", "what the metric is called", _SCORE),
    "score_unit": Fact(TEXT, "", "% stands for shares of 1", _SCORE),
    "higher_is_better": Fact(FLAG, "", "false for an error", _SCORE),
    "score_error": Fact(QUANTITY, "the metric's", "standard error of the score", _SCORE),
    "scores": Fact(TEXT, "1 or 16 bit per example", "each one: deflated, base64", _SCORE),
    "baseline_score": Fact(NUMBER, "the metric's", "that of the baseline", _SCORE),
    "score_lost": Fact(NUMBER, "the metric's", "by how much the baseline is better", _SCORE),
    "epoch_scores": Fact(NUMBERS, "the metric's", "validation score per epoch", _ROWS),
    # Latency.
    "timing": Fact(choice(*TIMINGS), "", "wall clock, events, a CUDA graph", _LATENCY),
    "batch_size": Fact(POSITIVE_COUNT, "image", "per prediction or training step", _CARD),
    "latency_ms": Fact(POSITIVE, "ms", "lower quartile of a prediction", _LATENCY),
    "baseline_latency_ms": Fact(POSITIVE, "ms", "that of the baseline, interleaved", _LATENCY),
    "speed_up": Fact(POSITIVE, "", "baseline_latency_ms / latency_ms", _LATENCY),
    "speed_up_low": Fact(POSITIVE, "", "lower end of its 95% interval", _LATENCY),
    "speed_up_high": Fact(POSITIVE, "", "upper end of its 95% interval", _LATENCY),
    "pairs": Fact(POSITIVE_COUNT, "", "pairs of times that they come from", _LATENCY),
    "preempted": Fact(COUNT, "", "pairs in which another process took the core", _LATENCY),
    "noisy": Fact(FLAG, "", "too few pairs were left: no evidence", _LATENCY),
    "num_threads": Fact(POSITIVE_COUNT, "", "torch's threads on the CPU", _LATENCY),
    "kernels": Fact(COUNTS, "launch", "kernels that the claim needs and that ran", _LATENCY),
    "integer_kernels": Fact(COUNT, "launch", "integer kernels that ran", _LATENCY),
    "stayed": Fact(TEXTS, "", "layers that the executor left in float", _LATENCY),
    "tf32": Fact(FLAG, "", "float32 matrix products may round to TF32", _LATENCY),
    "cudnn_benchmark": Fact(FLAG, "", "cuDNN chose its algorithms by time", _LATENCY),
    "rival": Fact(TEXT, "", "the fastest of the other engines", _LATENCY, nullable=True),
    "rival_ratio": Fact(POSITIVE, "", "the rival's time / this one's", _LATENCY),
    # Latency on a GPU.
    "tf32_matmul": Fact(FLAG, "", "the setting of matrix products", _LATENCY),
    "tf32_cudnn": Fact(FLAG, "", "the setting of convolutions", _LATENCY),
    "float32_matmul_precision": Fact(TEXT, "", "torch's word for it", _LATENCY),
    "cudnn_deterministic": Fact(FLAG, "", "cuDNN may not choose other algorithms", _LATENCY),
    "cudnn_version": Fact(COUNT, "", "that of cuDNN", _LATENCY, nullable=True),
    "cuda_version": Fact(TEXT, "", "that of CUDA in torch", _LATENCY, nullable=True),
    "driver_version": Fact(TEXT, "", "that of NVIDIA's kernel driver", _LATENCY, nullable=True),
    "device_name": Fact(TEXT, "", "the model of the card", _CARD),
    "cuda_kernels": Fact(COUNT, "launch", "per prediction; null: not seen", _LATENCY, nullable=True),
    "model_memory_bytes": Fact(COUNT, "byte", "what the model holds on the device", _LATENCY),
    "prediction_peak_memory_bytes": Fact(COUNT, "byte", "what a prediction adds", _LATENCY, True),
    "energy_mj": Fact(QUANTITY, "mJ", "per prediction, of the whole card", _LATENCY, nullable=True),
    "energy_mj_per_image": Fact(QUANTITY, "mJ", "per image", _LATENCY),
    "energy_source": Fact(choice("counter", "power"), "", "NVML's counter or power", _LATENCY),
    "energy_window_s": Fact(POSITIVE, "s", "how long it was measured", _LATENCY),
    "energy_predictions": Fact(POSITIVE_COUNT, "", "predictions in that time", _LATENCY),
    "energy_unknown": Fact(TEXT, "", "why there is no energy", _LATENCY),
    "beaten": Fact(TEXT, "", "the fastest float16 path", _LATENCY),
    "ours": Fact(TEXT, "", "the faster INT8 path: eager or a graph", _LATENCY),
    "quickest_ms": Fact(DURATIONS, "ms", "lower quartile of every path", _LATENCY),
    # Layers of an INT8 network on a GPU.
    "layers": Fact(OBJECTS, "", "time, floors, work and tile of each convolution", _LAYERS),
    "far": Fact(TEXTS, "", "layers far above their floor", _LAYERS),
    "bytes_per_s": Fact(POSITIVE, "byte/s", "what the card copies, measured", _LAYERS),
    "int8_ops_per_s": Fact(POSITIVE, "1/s", "int8 operations of the card, measured", _LAYERS),
    "float16_ops_per_s": Fact(POSITIVE, "1/s", "float16 operations of the card, measured", _LAYERS),
    # Outputs of INT8 against those of the network in float64.
    "sqnr_db": Fact(NUMBER, "dB", "signal to quantization noise of the outputs", _LATENCY),
    # An integer executor against the reference executor.
    "executor": Fact(TEXT, "", "the integer executor", _AGREEMENT),
    "same_choice": Fact(SHARE, "share of images", "on which both choose one class", _AGREEMENT),
    "simulated_accuracy": Fact(SHARE, "share of images", "that of the reference executor", _AGREEMENT),
    "deployed_accuracy": Fact(SHARE, "share of images", "that of the integer executor", _AGREEMENT),
    "largest_code_difference": Fact(COUNT, "code", "of any layer's outputs", ("agreement", "latency")),
    "differing_codes": Fact(SHARE, "share of codes", "that differ in the worst layer", _LATENCY),
    # Cost of compression, and of the baseline's training on a GPU.
    "seconds": Fact(QUANTITY, "s", "what compression or training took", _TAKES_TIME),
    "peak_memory_bytes": Fact(COUNT, "byte", "what compression adds at most", ("cost",), nullable=True),
    "calibration_images": Fact(POSITIVE_COUNT, "image", "that an engine was given", ("cost",)),
    "first_epoch_s": Fact(POSITIVE, "s", "the first epoch, with the compilation", _TRAINING),
    "images_per_s": Fact(POSITIVE, "image/s", "in the median epoch", _EPOCHS),
    "epochs": Fact(POSITIVE_COUNT, "", "that were trained", _EPOCHS),
    "compiled": Fact(FLAG, "", "by torch.compile", _TRAINING),
    "views": Fact(COUNT, "epoch", "whose batches are drawn anew; 0: all", _TEACHING),
    "epoch_ratio": Fact(POSITIVE, "", "an epoch's time / that of one without a teacher", _TEACHING),
    # Channels that an engine removes from one of torchvision's networks.
    "macs_left": Fact(SHARE, "share of the network's", "MACs that are left", _REMOVAL, nullable=True),
    "as_zeros": Fact(FLAG, "", "the outputs are those of zeros for what went", _REMOVAL, nullable=True),
    "refusal": Fact(TEXT, "", "why there is no smaller network", _REMOVAL, nullable=True),
    # Coders of weights within an error, and the speed and memory of storage.
    "error": Fact(QUANTITY, "share of squared norm", "squared error of the weights", _CODER),
    "error_budget": Fact(POSITIVE, "share of squared norm", "the largest error allowed", _CODER),
    "sparsity": Fact(SHARE, "share of weights", "that were pruned before", _CODER),
    "encode_s": Fact(POSITIVE, "s", "to write the file", _CODER),
    "decode_s": Fact(POSITIVE, "s", "to read it", _CODER),
    "setting": Fact(TEXT, "", "the coder's setting that gave the file", _CODER),
    "do": Fact(choice("save", "load"), "", "the operation that is measured", _STORAGE),
    "mb_per_s": Fact(POSITIVE, "MB/s", "float32 bytes of the network per second", ("storage-speed",)),
    "model_sizes": Fact(QUANTITY, "float32 size of the network", "memory at its peak", _STORAGE[1:]),
}
# fmt: on


def check_fact(name: str, value: Any) -> None:
    """Refuse a fact that FACTS does not know (ValueError) or of another type (TypeError)."""
    fact = FACTS.get(name)
    if fact is None:
        raise ValueError(f"fact {name} is unknown: give it a row in benchmarks/facts/schema.py")
    if not fact.holds(value):
        raise TypeError(f"fact {name}: expected {fact.expected}, found {reprlib.repr(value)}")


def facts_table() -> str:
    """Return FACTS as a Markdown table, in their order."""
    lines = ["| fact | type | unit | recorded by | meaning |", "|-|-|-|-|-|"]
    for name, fact in FACTS.items():
        where = ", ".join(fact.metrics) or "all"
        lines.append(f"| `{name}` | {fact.expected} | {fact.unit} | {where} | {fact.meaning} |")
    return "\n".join(lines)
