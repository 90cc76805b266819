"""Ways out: the tables of many runs for other engines, and as Parquet."""

#: The tables beside the user's own: a row for each run, with its state, or with its parameters.
RUNS, PARAMS = "runs", "params"
