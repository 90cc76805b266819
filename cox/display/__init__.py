"""Values, times and tables as people read them: the same in a terminal, in a pipe and in a notebook.

Pure functions of plain values: nothing here reads a run, prints, or knows of pandas. `text` is for one value,
`times` for moments and durations, `grid` for rows as columns, and `fitting` chooses which columns of a grid
fit into a line.
"""
