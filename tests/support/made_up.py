"""Made-up facts in the shape that the benchmarks record, for the tests of the table and figures."""

from typing import Any

MIB = 2**20
IMAGES = 10_000
BASELINE_ACCURACY = 0.9424
TIMINGS = {"cpu": ("wall",), "cuda": ("wall", "event", "graph")}
BASE_MS = {
    "cpu": ((1, 14.3), (64, 1210.0)),
    "cuda": ((1, 1.42), (128, 4.31), (1024, 31.7)),
}

# fmt: off
TECHNIQUES = (
    # name                            MiB  accuracy  nonzeros        MACs  seconds   met  speed-up
    ("baseline",                     42.72, 0.9424, 11_173_962, 556_651_520,   0.0, True,  1.00),
    ("l1-unstructured-60",           18.42, 0.9391,  4_480_118, 556_651_520,   0.4, True,  1.01),
    ("l1-unstructured-60-tuned",     18.42, 0.9418,  4_480_118, 556_651_520, 212.0, True,  1.00),
    ("l1-global-60",                 18.43, 0.9408,  4_480_120, 556_651_520,   0.7, True,  0.99),
    ("random-unstructured-60",       18.42, 0.1000,  4_480_118, 556_651_520,   0.3, None,  1.00),
    ("random-unstructured-60-tuned", 18.42, 0.8710,  4_480_118, 556_651_520, 208.0, None,  1.00),
    ("ln-structured-30",             30.05, 0.2135,  7_826_400, 556_651_520,   0.4, None,  1.00),
    ("ln-structured-30-tuned",       30.05, 0.9302,  7_826_400, 556_651_520, 210.0, True,  1.01),
    ("channels-50",                  28.10, 0.4120,  7_320_000, 277_900_000,   1.2, None,  1.52),
    ("channels-50-tuned",            28.10, 0.9388,  7_320_000, 277_900_000, 214.0, True,  1.53),
    ("channels-50-int8",              7.12, 0.9371,  7_310_000, 277_900_000, 216.0, True,  4.61),
    ("dynamic-int8",                 42.70, 0.9424, 11_173_950, 556_651_520,   0.1, True,  0.98),
    ("static-int8",                  10.76, 0.9411, 11_164_202, 556_651_520,   9.3, True,  None),
    ("int4-weights",                  6.05, 0.9350,  9_540_011, 556_651_520,   1.1, True,  0.71),
    ("float16",                      21.37, 0.9424, 11_173_962, 556_651_520,   0.0, True,  None),
    ("bfloat16",                     21.37, 0.9420, 11_173_962, 556_651_520,   0.0, True,  0.64),
    ("student",                       5.19, 0.8474,  1_356_042,  41_000_960,  96.0, None,  6.12),
    ("distilled",                     5.19, 0.8569,  1_356_042,  41_000_960, 148.0, False, 6.10),
    ("distilled-paper-t0.01",         5.19, 0.8381,  1_356_042,  41_000_960, 149.0, None,  6.09),
)
# fmt: on
FAMILIES = {  # the fraction removed at which accuracy has fallen half way: as pruned, fine-tuned
    "l1-unstructured": (0.66, 0.97),
    "l1-global": (0.76, 1.03),
    "random-unstructured": (0.25, 0.84),
    "ln-structured": (0.18, 0.56),
}
REMOVALS = {  # the accuracy lost where nothing is left of the multiply-accumulates
    "channels": 0.05,
    "random-channels": 0.13,
    "small-dense": 0.08,
}
BASE_MACS = 556_651_520
TEMPERATURES = (0.01, 1.0, 4.0, 10.0)
ALPHAS = (0.1, 0.5, 0.9)


def default_run(device: str = "cpu") -> list[dict[str, Any]]:
    """Return size, accuracy, latency and cost of every technique, in the order of the tests."""
    found: list[dict[str, Any]] = []
    for name, mib, accuracy, nonzeros, macs, seconds, met, speed in TECHNIQUES:
        common = _common(name, device) | {"simulated": speed is None, "target_met": met}
        bytes_ = {"stored_bytes": round(mib * MIB), "baseline_stored_bytes": round(42.72 * MIB)}
        counts = {"parameters": max(nonzeros, 1_356_042), "nonzeros": nonzeros, "macs": macs}
        found.append({**common, "metric": "size", **bytes_, **counts})
        epochs = _epochs(accuracy) if nonzeros == 1_356_042 else {}
        stored = {"stored_bytes": round(mib * MIB)}
        found.append({**common, **accuracy_facts(accuracy), **epochs, **stored})
        found.append({**common, "metric": "cost", "seconds": seconds})
        if speed is not None:
            found += [{**common, **fact} for fact in _latency(device, float(speed))]
    return found


def pruning_sweep(device: str = "cpu") -> list[dict[str, Any]]:
    """Return the points of figure 2: four families, 10 to 90%, as pruned and fine-tuned."""
    return [
        _common(f"sweep-{family}-{10 * tenth}{'-tuned' * tuned}", device)
        | accuracy_facts(
            0.1 + 0.8424 / (1 + 2.718 ** ((tenth / 10 - FAMILIES[family][tuned]) * 22))
        )
        | {"family": family, "sweep": True, "amount": tenth / 10, "fine_tuned": tuned}
        for family in FAMILIES
        for tenth in range(1, 10)
        for tuned in (False, True)
    ]


def channels_sweep(device: str = "cpu") -> list[dict[str, Any]]:
    """Return size, accuracy and latency of the points of removed channels and their controls."""
    found: list[dict[str, Any]] = []
    for family, lost in REMOVALS.items():
        for share in (0.75, 0.5, 0.35, 0.25, 0.125):
            common = _common(f"sweep-{family}-{share * 100:g}", device)
            common |= {"family": family, "sweep": True, "macs_share": share}
            stored = {
                "stored_bytes": round(42.72 * MIB * share**0.7),
                "baseline_stored_bytes": round(42.72 * MIB),
            }
            counts = {"parameters": round(11_173_962 * share**0.7), "macs": int(BASE_MACS * share)}
            accuracy = BASELINE_ACCURACY - lost * (1 - share) ** 3
            found.append({**common, "metric": "size", **stored, **counts})
            found.append({**common, **accuracy_facts(accuracy), **stored})
            found += [{**common, **fact} for fact in _latency(device, share**-0.6)]
    return found


def size_sweep(device: str = "cpu") -> list[dict[str, Any]]:
    """Return the points of the curve of size against accuracy."""
    return [
        _common(f"sweep-pruned-shared-{pruned * 100:.0f}", device)
        | accuracy_facts(accuracy)
        | {"family": "pruned-shared", "sweep": True, "pruned": pruned, "bit_cost": 0.1}
        | {"stored_bytes": int(42.72 * MIB / times), "baseline_stored_bytes": int(42.72 * MIB)}
        for pruned, accuracy, times in ((0.75, 0.943, 25), (0.88, 0.941, 42), (0.96, 0.925, 101))
    ]


def distillation_sweep(device: str = "cpu") -> list[dict[str, Any]]:
    """Return the points of figure 6 and their control."""
    control = _common("sweep-student", device) | accuracy_facts(0.8474) | _epochs(0.8474)
    found = [{**control, "family": "student", "sweep": True}]
    for i, temperature in enumerate(TEMPERATURES):
        for alpha in ALPHAS:
            accuracy = 0.838 + alpha * 0.02 * (0, 0.6, 1.0, 0.8)[i]
            point = {"temperature": temperature, "alpha": alpha, "sweep": True}
            name = f"sweep-distilled-t{temperature:g}-a{alpha:g}"
            found.append(
                _common(name, device) | accuracy_facts(accuracy) | _epochs(accuracy) | point
                | {"family": "distilled"}
            )  # fmt: skip
    return found


def accuracy_facts(accuracy: float) -> dict[str, Any]:
    """Return the facts of an accuracy on all test images."""
    correct = round(accuracy * IMAGES)
    counts = {"correct": correct, "total": IMAGES, "accuracy": correct / IMAGES}
    base = {"baseline_accuracy": BASELINE_ACCURACY, "drop": BASELINE_ACCURACY - correct / IMAGES}
    return {"metric": "accuracy", **counts, **base}


def _common(name: str, device: str) -> dict[str, Any]:
    where = {"device": device, "workload": "cifar10", "data": "CIFAR-10"}
    return {"technique": name, "family": name, **where, "simulated": False, "target_met": None}


def _epochs(last: float) -> dict[str, Any]:
    # Each curve has its own rate, as trainings have; with one rate they would cover one another.
    rate = 0.5 + 4 * (0.87 - last)
    return {"epoch_accuracy": [last - 0.4 * rate**epoch for epoch in range(1, 11)]}


def _latency(device: str, speed: float) -> list[dict[str, Any]]:
    found = []
    for batch, base_ms in BASE_MS[device]:
        for i, timing in enumerate(TIMINGS[device]):
            interval = {"speed_up_low": speed * 0.98, "speed_up_high": speed * 1.03}
            where = {"metric": "latency", "timing": timing, "batch_size": batch}
            times = {"latency_ms": base_ms / speed / 1.3**i, "speed_up": speed, **interval}
            found.append({**where, **times, **_costs(device, timing, batch, speed)})
    return found


def _costs(device: str, timing: str, batch: int, speed: float) -> dict[str, Any]:
    if device != "cuda":
        return {}
    found: dict[str, Any] = {
        "model_memory_bytes": 43 * MIB,
        "prediction_peak_memory_bytes": batch * MIB,
    }
    if timing == "event" and batch == 1:
        found["cuda_kernels"] = round(62 / speed)
    if timing == "graph":
        image_mj = (310 / batch + 24) / speed
        found |= {"energy_mj": image_mj * batch, "energy_mj_per_image": image_mj}
    return found
