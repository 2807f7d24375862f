"""Builds, tests and measures the turbo types on a machine with an NVIDIA GPU, within a budget of minutes."""
