"""Time: clocks, CUDA graphs, interleaved pairs, and what a busy machine does to them."""
