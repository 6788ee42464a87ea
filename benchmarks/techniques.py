"""TECHNIQUES: every promise the project makes, one row each; BY_NAME knows the sweep's points too.

A new technique is a function in compression/ and a row here: its name, how the baseline becomes its
model, and its targets. Without `claims` its latency counts on both devices.
"""

import torch

from benchmarks.calibration import calibration
from benchmarks.machine.kernels import INTEGER_KERNELS
from benchmarks.pipelines import (
    ALONE,
    follow_schedule,
    learn,
    prune_and_share,
    prune_and_train,
    recalibrate,
    remove,
    remove_and_share,
    remove_and_tune,
    remove_softly,
    train_quantized,
    train_student,
    tune,
)
from benchmarks.sweep import SWEEP, TIMED
from benchmarks.technique import (
    DEVICES,
    LATENCY,
    SIMULATED,
    SIZE_ONLY,
    Claim,
    Technique,
    targets,
)
from compression.clustering import share_weights
from compression.distillation import Hinton
from compression.integer import lacking, native, preferred
from compression.pruning import (
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
    prune_random_unstructured,
)
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.schedules import (
    learn_pruned,
    learn_shared,
    prune_gradually,
    prune_iteratively,
)
from compression.semi_structured import SEMI_STRUCTURED_KERNELS, lower_semi_structured

__all__ = ["BY_NAME", "SWEEP", "TECHNIQUES", "TIMED", "Technique"]


def _int8_on(device: str) -> Claim:
    runs = not all(map(lacking, preferred(device)))
    return Claim("latency" if runs else "simulated", kernels=INTEGER_KERNELS)


NO_SPEED = dict.fromkeys(DEVICES, SIZE_ONLY)
INT8 = {device: _int8_on(device) for device in DEVICES}
DYNAMIC_INT8 = dict.fromkeys(DEVICES, Claim(kernels=((native.DYNAMIC_KERNEL,), ("aten::_int_mm",))))
AT_ONCE = 10**9
"""Steps between two removals, of which then only the last one happens."""
SPARSE_CORES = {"cuda": Claim(kernels=SEMI_STRUCTURED_KERNELS, otherwise="size only")}
CUDA_ONLY = {"cuda": LATENCY}
TOO_EASY = ("digits",)
"""Where these rows no longer differ from those that they stand beside."""
# A GPU waits for launches and memory before it waits for multiply-accumulates: fewer of them make
# small batches no faster.
FEWER_MACS = {"cpu": LATENCY, "cuda": Claim(speed_up=0.9)}

# fmt: off
TECHNIQUES = (
    Technique("baseline",
              lambda b: b.model,
              targets(size=1.0, drop_digits=0.0, drop_cifar10=0.0, speed_up=0.9)),
    Technique("l1-unstructured-60",
              lambda b: prune_l1_unstructured(b.model, amount=0.6),
              targets(size=0.44, speed_up=0.9)),
    Technique("l1-unstructured-60-recalibrated",
              lambda b: recalibrate(b, prune_l1_unstructured(b.model, amount=0.6)),
              targets(size=0.44, drop_digits=0.02, drop_cifar10=0.02),
              claims=NO_SPEED),
    Technique("l1-unstructured-60-tuned",
              lambda b: tune(b, prune_l1_unstructured(b.model, amount=0.6)),
              targets(size=0.44, drop_digits=0.02, drop_cifar10=0.01),
              claims=NO_SPEED),
    Technique("l1-unstructured-60-taught",
              lambda b: tune(b, prune_l1_unstructured(b.model, amount=0.6), taught=True),
              targets(size=0.44, drop_digits=0.02, drop_cifar10=0.01),
              claims=NO_SPEED, left_out_on=TOO_EASY),
    Technique("l1-global-60",
              lambda b: prune_l1_global(b.model, amount=0.6),
              targets(size=0.44, drop_digits=0.02, drop_cifar10=0.02, speed_up=0.9)),
    Technique("random-unstructured-60",
              lambda b: prune_random_unstructured(b.model, amount=0.6),
              targets(size=0.44),
              claims=NO_SPEED),
    Technique("random-unstructured-60-tuned",
              lambda b: tune(b, prune_random_unstructured(b.model, amount=0.6)),
              targets(size=0.44),
              claims=NO_SPEED),
    Technique("l1-global-98-tuned",
              lambda b: follow_schedule(b, prune_iteratively, amount=0.98, rounds=1),
              targets(size=0.05),
              claims=NO_SPEED, left_out_on=TOO_EASY),
    Technique("tuned-l1-global-98",
              lambda b: follow_schedule(b, prune_gradually, amount=0.98, until=1.0, every=AT_ONCE),
              targets(size=0.05),
              claims=NO_SPEED),
    Technique("gradual-98",
              lambda b: follow_schedule(b, prune_gradually, amount=0.98),
              targets(size=0.05, drop_digits=0.03),
              claims=NO_SPEED),
    Technique("iterative-98",
              lambda b: follow_schedule(b, prune_iteratively, amount=0.98, rounds=4),
              targets(size=0.05, drop_digits=0.03),
              claims=NO_SPEED, left_out_on=TOO_EASY),
    Technique("learned-98",
              lambda b: learn(b, learn_pruned, amount=0.98),
              targets(size=0.05, drop_digits=0.05),
              claims=NO_SPEED),
    Technique("ln-structured-30",
              lambda b: prune_ln_structured(b.model, amount=0.3),
              targets(size=0.75, speed_up=0.9)),
    Technique("ln-structured-30-tuned",
              lambda b: tune(b, prune_ln_structured(b.model, amount=0.3)),
              targets(size=0.75, drop_digits=0.03, drop_cifar10=0.10),
              claims=NO_SPEED, left_out_on=TOO_EASY),
    Technique("channels-50",
              lambda b: remove(b, macs=0.5),
              targets(size=0.75, speed_up=1.3),
              claims=FEWER_MACS),
    Technique("channels-50-tuned",
              lambda b: remove_and_tune(b, macs=0.5),
              targets(size=0.6, drop_digits=0.02, drop_cifar10=0.002, speed_up=1.3),
              claims=FEWER_MACS),
    Technique("soft-channels-50",
              lambda b: remove_softly(b, macs=0.5),
              targets(size=0.6, drop_digits=0.02, drop_cifar10=0.002, speed_up=1.3),
              claims=FEWER_MACS),
    Technique("channels-25-tuned",
              lambda b: remove_and_tune(b, macs=0.25),
              targets(size=0.35, drop_digits=0.02, drop_cifar10=0.01, speed_up=1.6),
              claims=FEWER_MACS),
    Technique("random-channels-25-tuned",
              lambda b: remove_and_tune(b, macs=0.25, criterion="random"),
              targets(size=0.35, speed_up=1.6),
              claims=FEWER_MACS, left_out_on=TOO_EASY),
    Technique("channels-12-tuned",
              lambda b: remove_and_tune(b, macs=0.125),
              targets(size=0.2, drop_digits=0.05, drop_cifar10=0.025, speed_up=1.8),
              claims=FEWER_MACS),
    Technique("2-of-4",
              lambda b: prune_n_of_m(b.model),
              targets(size=0.54),
              claims=NO_SPEED),
    Technique("2-of-4-tuned",
              lambda b: tune(b, prune_n_of_m(b.model)),
              targets(size=0.54, drop_digits=0.02, drop_cifar10=0.01),
              claims=NO_SPEED, left_out_on=TOO_EASY),
    Technique("2-of-4-float16",
              lambda b: cast(tune(b, prune_n_of_m(b.model)), torch.float16),
              targets(size=0.28, drop_digits=0.02, drop_cifar10=0.01),
              claims=SPARSE_CORES, prepare=lower_semi_structured, channels_last=True),
    Technique("dynamic-int8",
              lambda b: quantize_dynamic(b.model),
              targets(size=1.0, drop_digits=0.005, drop_cifar10=0.005, speed_up=0.8),
              claims=DYNAMIC_INT8),
    Technique("static-int8",
              lambda b: quantize_static(b.model, calibration(b)),
              targets(size=0.26, drop_digits=0.01, drop_cifar10=0.0015),
              claims=INT8),
    Technique("int8-qat",
              train_quantized,
              targets(size=0.26, drop_digits=0.01, drop_cifar10=0.01),
              claims=INT8),
    Technique("int8-qat-taught",
              lambda b: train_quantized(b, taught=True),
              targets(size=0.26, drop_digits=0.01, drop_cifar10=0.01),
              claims=INT8, left_out_on=TOO_EASY),
    Technique("int4-weights",
              lambda b: quantize_weights(b.model, num_bits=4, group_size=64),
              targets(size=0.15, drop_digits=0.02, drop_cifar10=0.02, speed_up=0.9)),
    Technique("shared-16",
              lambda b: share_weights(b.model, num_clusters=16),
              targets(size=0.13, drop_digits=0.02, drop_cifar10=0.02, speed_up=0.9)),
    Technique("learned-shared-16",
              lambda b: learn(b, learn_shared, num_clusters=16, most=4),
              targets(size=0.13, drop_digits=0.02, drop_cifar10=0.02),
              claims=NO_SPEED, left_out_on=TOO_EASY),
    Technique("static-int8-coded",
              lambda b: quantize_static(b.model, calibration(b)),
              targets(size=0.23, drop_digits=0.01, drop_cifar10=0.0015),
              claims=INT8, entropy_coded=True),
    Technique("pruned-int8-coded",
              lambda b: quantize_static(prune_and_train(b, 0.8), calibration(b)),
              targets(size=0.08, drop_digits=0.01, drop_cifar10=0.01),
              claims=INT8, entropy_coded=True),
    Technique("pruned-shared-coded",
              lambda b: prune_and_share(b, amount=0.85, bit_cost=0.05),
              targets(size=0.04, drop_digits=0.005, drop_cifar10=0.005, speed_up=0.9),
              entropy_coded=True, facts={"pruned": 0.85, "bit_cost": 0.05}),
    Technique("pruned-shared-taught-coded",
              lambda b: prune_and_share(b, amount=0.85, bit_cost=0.05, taught=True),
              targets(size=0.04, drop_digits=0.005, drop_cifar10=0.005),
              claims=NO_SPEED, entropy_coded=True, left_out_on=TOO_EASY,
              facts={"pruned": 0.85, "bit_cost": 0.05}),
    Technique("channels-25-int8",
              lambda b: quantize_static(remove_and_tune(b, macs=0.25), calibration(b)),
              targets(size=0.1, drop_digits=0.02, drop_cifar10=0.012),
              claims=INT8),
    Technique("channels-25-int8-coded",
              lambda b: quantize_static(remove_and_tune(b, macs=0.25), calibration(b)),
              targets(size=0.055, drop_digits=0.02, drop_cifar10=0.012),
              claims=INT8, entropy_coded=True),
    Technique("channels-25-shared-coded",
              lambda b: remove_and_share(b, macs=0.25, bit_cost=0.05),
              targets(size=0.035, drop_digits=0.02, drop_cifar10=0.015, speed_up=1.6),
              claims=FEWER_MACS, entropy_coded=True, facts={"bit_cost": 0.05}),
    Technique("float16",
              lambda b: cast(b.model, torch.float16),
              targets(size=0.51, drop_digits=0.005, drop_cifar10=0.002),
              claims={"cpu": SIMULATED, "cuda": LATENCY}),
    Technique("bfloat16",
              lambda b: cast(b.model, torch.bfloat16),
              targets(size=0.51, drop_digits=0.01, drop_cifar10=0.005)),
    Technique("channels-last",
              lambda b: b.model,
              targets(size=1.0, drop_digits=0.0, drop_cifar10=0.0),
              claims=CUDA_ONLY, channels_last=True),
    Technique("float16-channels-last",
              lambda b: cast(b.model, torch.float16),
              targets(size=0.51, drop_digits=0.005, drop_cifar10=0.002),
              claims=CUDA_ONLY, channels_last=True),
    Technique("bfloat16-channels-last",
              lambda b: cast(b.model, torch.bfloat16),
              targets(size=0.51, drop_digits=0.01, drop_cifar10=0.005),
              claims=CUDA_ONLY, channels_last=True),
    Technique("student",
              lambda b: train_student(b, ALONE),
              targets(size=0.122, speed_up=1.0),
              student=True),
    Technique("distilled",
              lambda b: train_student(b, Hinton(temperature=4.0, alpha=0.5)),
              targets(size=0.122, drop_digits=0.03, speed_up=1.0),
              student=True),
    Technique("distilled-paper-t0.01",
              lambda b: train_student(b, Hinton(temperature=0.01, alpha=0.5)),
              targets(size=0.122, speed_up=1.0),
              student=True, left_out_on=TOO_EASY),
)
# fmt: on

BY_NAME = {technique.name: technique for technique in (*TECHNIQUES, *SWEEP)}
