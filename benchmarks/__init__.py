"""The promises: size, accuracy, latency and cost of each technique."""
