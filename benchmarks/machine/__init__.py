"""What the machine is and what it tells: devices, memory, energy, kernels, processes."""
