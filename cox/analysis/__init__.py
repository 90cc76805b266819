"""Pure functions of what was read of many runs: parameters, statistics, plots."""
