"""Ways out: the tables of many runs for other engines, and as Parquet."""
