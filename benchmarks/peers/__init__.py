"""The engines that a user would pick instead, each in a process of its own."""
