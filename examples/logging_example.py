"""Look for the minimum of a quadratic from nine starting conditions, and log each search as a run.

    python examples/logging_example.py [OUT_DIR]

This is the program of walkthroughs/1-logging.md in one piece. Each search makes a store of its own in
OUT_DIR, so that calling it again adds nine runs to those already there.
"""

from __future__ import annotations

import argparse
import itertools

from cox import CollectionReader, Store

STEP_SIZES = [0.01, 0.1, 1.0]
TOLERANCES = [1e-6]
INITIAL_XS = [-1.0, 1.0, 4.0]


def f(x: float) -> float:
    """The function to minimise: its minimum is f(2.03) = 3."""
    return (x - 2.03) ** 2 + 3


def minimize(x: float, step: float, tolerance: float) -> float:
    """Walk downhill in steps of one size until both directions look alike, at most 1,000 of them."""
    for _ in range(1000):
        if f(x + step) < f(x - step):
            x += step
        else:
            x -= step
        if abs(f(x + step) - f(x - step)) < tolerance:
            break
    return x


def search(out_dir: str, step_size: float, tolerance: float, initial_x: float) -> None:
    """Run one search, logged as a run of OUT_DIR."""
    with Store(out_dir) as store:
        store.add_table(
            "metadata",
            {"step_size": float, "tolerance": float, "initial_x": float, "out_dir": str},
        )
        store.add_table("result", {"final_x": float, "final_opt": float})

        store["metadata"].append_row(
            {
                "step_size": step_size,
                "tolerance": tolerance,
                "initial_x": initial_x,
                "out_dir": out_dir,
            }
        )
        final_x = minimize(initial_x, step_size, tolerance)
        store["result"].append_row({"final_x": final_x, "final_opt": f(final_x)})


def main() -> None:
    """Run the grid, then collect what it logged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", nargs="?", default="output/logging", metavar="OUT_DIR")
    out_dir = parser.parse_args().out_dir

    for step_size, tolerance, initial_x in itertools.product(STEP_SIZES, TOLERANCES, INITIAL_XS):
        search(out_dir, step_size, tolerance, initial_x)

    with CollectionReader(out_dir) as reader:
        results = reader.df("result").merge(reader.df("metadata"), on="exp_id")
    shown = ["step_size", "initial_x", "final_x", "final_opt"]
    print(results.sort_values(shown)[shown].to_string(index=False))


if __name__ == "__main__":
    main()
