"""Log five lines and five parabolas to tables and to TensorBoard at once.

    python examples/tensorboard_example.py [OUT_DIR]

This is the program of walkthroughs/2-tensorboard.md in one piece. It prints the command that compares
the runs in TensorBoard.
"""

from __future__ import annotations

import argparse

from cox import CollectionReader, Store


def draw(out_dir: str, slope: int) -> None:
    """Log y = slope * x and y = slope * x**2 for x from 0 to 99, as a run of OUT_DIR."""
    with Store(out_dir) as store:
        store.add_table("metadata", {"slope": int})
        store.add_table("line_graphs", {"mx": int, "mx^2": int})

        store["metadata"].append_row({"slope": slope})
        for x in range(100):
            # fills the working row and draws the point x of two curves in TensorBoard …
            store.log_table_and_tb("line_graphs", {"mx": slope * x, "mx^2": slope * x**2})
            # … and this writes the row
            store["line_graphs"].flush_row()


def main() -> None:
    """Log five runs, then count what they logged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", nargs="?", default="output/tensorboard", metavar="OUT_DIR")
    out_dir = parser.parse_args().out_dir

    for slope in range(5):
        draw(out_dir, slope)

    with CollectionReader(out_dir) as reader:
        lines = reader.df("line_graphs")
    print(f"{len(lines)} rows of {lines['exp_id'].nunique()} runs in {out_dir}; to compare them:")
    print(
        f"  python -m cox.tensorboard_view --logdir {out_dir} --format-str 'slope-{{slope}}' "
        "--filter-param slope '[1-3]'"
    )


if __name__ == "__main__":
    main()
