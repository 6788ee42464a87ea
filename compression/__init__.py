"""Compress deep networks: pruning, quantization, distillation, and files that are really smaller."""
