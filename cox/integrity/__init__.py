"""Damaged runs, and copies of runs: check, repair, send curves again, copy."""
