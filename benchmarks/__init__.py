"""Benchmarks: `python -m benchmarks [subject …] [--quick] [--markdown]`, or scripts/bench.

Each subject measures a floor, its peers and cox in the same process, taking turns, because the speed of
a machine changes from second to second. What is reported are medians, and ratios of what ran side by side.
"""
