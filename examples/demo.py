"""What the log is good for, on real data: train a grid of networks, kill one, resume it, compare all.

    python examples/demo.py [--out DIR]

Six processes train a network each on handwritten digits (examples/digits.py), two at a time. One is
killed with SIGKILL half-way and started again. Everything this program knows of them, down to its
progress bars, it reads from their stores, most of it while they are being written. At the end it checks
that no epoch is missing and none is there twice, reloads the best network and tests it again; anything
that does not hold ends it with exit status 1.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from cox import CollectionReader, Store
from cox.errors import RunNotFoundError, TableNotFoundError

console = Console(highlight=False)


class DemoError(Exception):
    """Something that cox promises does not hold."""


@dataclass(frozen=True)
class Job:
    """A network to train."""

    lr: float
    width: int

    @property
    def exp_id(self) -> str:
        """The name of its run: the same command goes on with the same run."""
        return f"lr-{self.lr}-width-{self.width}"

    def start(self, out: Path, epochs: int) -> subprocess.Popen[bytes]:
        """Train it in a process of its own, from wherever an earlier one got to."""
        options = {"out": out, "lr": self.lr, "width": self.width, "epochs": epochs}
        command = [sys.executable, str(Path(__file__).with_name("digits.py"))]
        command += [f"--{name}={value}" for name, value in options.items()]
        with self.printed(out).open("ab") as output:
            return subprocess.Popen(
                [*command, f"--exp-id={self.exp_id}"], stdout=output, stderr=subprocess.STDOUT
            )

    def printed(self, out: Path) -> Path:
        """The file with what its processes print."""
        return out / f"{self.exp_id}.txt"

    def nrows(self, out: Path) -> int:
        """How many epochs it has logged by now, whether or not it is still being written."""
        try:
            return Store(out, self.exp_id, mode="r")["epochs"].nrows
        except (RunNotFoundError, TableNotFoundError):
            return 0  # it has not come so far


class Trainer:
    """Trains jobs, some at a time, and kills the first that it catches half-way.

    Args:
        out: The folder of runs.
        epochs: How long to train each.
    """

    def __init__(self, out: Path, epochs: int) -> None:
        self.out = out
        self.epochs = epochs
        self.killed: Job | None = None
        self.running: dict[Job, subprocess.Popen[bytes]] = {}
        self.waiting: deque[Job] = deque()
        self.progress = Progress(
            TextColumn("{task.description:22}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            console=console,
        )

    def train(self, jobs: Iterable[Job], workers: int) -> None:
        """Train them all.

        Raises:
            DemoError: A process failed, or lost something; or none could be caught half-way.
        """
        self.waiting.extend(jobs)
        with self.progress:
            bars = {job: self.progress.add_task(job.exp_id, total=self.epochs) for job in self.waiting}
            try:
                while self.waiting or self.running:
                    while self.waiting and len(self.running) < workers:
                        job = self.waiting.popleft()
                        self.running[job] = job.start(self.out, self.epochs)
                    for job in list(self.running):
                        self.progress.update(bars[job], completed=self.look_after(job))
                    time.sleep(0.05)
            finally:
                for process in self.running.values():
                    process.kill()
                    process.wait()
        if self.killed is None:
            raise DemoError("every process ended before it could be killed; give more --epochs")

    def look_after(self, job: Job) -> int:
        """Notice if a job ended, kill it if it is time to; returns how many epochs it has logged."""
        status = self.running[job].poll()
        nrows = job.nrows(self.out)
        if status is None and self.killed is None and self.epochs // 2 + 2 <= nrows < self.epochs:
            status = self.kill(job)
        if status is not None:
            del self.running[job]
        if status not in (None, 0, -signal.SIGKILL):
            printed = job.printed(self.out)
            raise DemoError(
                f"{job.exp_id} ended with exit status {status}; the end of {printed}:\n"
                f"{printed.read_text()[-1500:]}"
            )
        return nrows

    def kill(self, job: Job) -> int:
        """Read a run in the midst of its work, end its process without a warning, put it in line again.

        Returns:
            The exit status of the process.
        """
        with CollectionReader(self.out, log_warnings=False) as reader:
            frame = reader.df("epochs")
        own = frame[frame["exp_id"] == job.exp_id]
        self.running[job].send_signal(signal.SIGKILL)
        status = self.running[job].wait()
        if status != -signal.SIGKILL:
            return status  # it had just ended by itself
        left = job.nrows(self.out)
        if left < len(own):
            raise DemoError(f"{job.exp_id} had {len(own)} epochs when killed, and {left} after that")
        self.killed = job
        self.waiting.appendleft(job)
        self.progress.print(
            f"Read while being written: {len(frame)} epochs so far; {job.exp_id} is at "
            f"{own['val_accuracy'].iloc[-1]:.1%}.\n"
            f"[red]Killed {job.exp_id}[/] (SIGKILL, process {self.running[job].pid}).\n"
            f"Its {left} epochs are still there. It is started again, from its last checkpoint.\n"
        )
        return status


def check_epochs(frame: pd.DataFrame, jobs: Iterable[Job], epochs: int) -> None:
    """Check that each run has each epoch, once.

    Raises:
        DemoError: One has not.
    """
    for job in jobs:
        logged = frame.loc[frame["exp_id"] == job.exp_id, "epoch"].to_list()
        if logged != list(range(epochs)):
            raise DemoError(f"{job.exp_id} should have epochs 0 to {epochs - 1}, and has {logged}")


def sparkline(values: pd.Series, low: float, high: float, width: int = 20) -> str:
    """A series as a line of blocks."""
    picked = [values.iloc[at * len(values) // width] for at in range(width)]
    return "".join("▁▂▃▄▅▆▇█"[round(7 * min(max((v - low) / (high - low), 0), 1))] for v in picked)


def compare(reader: CollectionReader, runs: pd.DataFrame) -> Table:
    """The runs as a table, best first."""
    epochs, sessions = reader.df("epochs"), reader.df("sessions")
    high = epochs["val_accuracy"].max()
    low = high - 0.2
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("lr", "width", "val.", "test"):
        table.add_column(title, justify="right")
    table.add_column(f"{low:.0%} ▁ … █ {high:.0%}")
    table.add_column("")
    for place, run in enumerate(runs.itertuples()):
        curve = epochs.loc[epochs["exp_id"] == run.exp_id, "val_accuracy"]
        begun = sessions.loc[sessions["exp_id"] == run.exp_id, "first_epoch"].iloc[1:]
        table.add_row(
            f"{run.lr:g}",
            f"{run.width}",
            f"{run.val_accuracy:.1%}",
            f"{run.test_accuracy:.1%}",
            sparkline(curve, low, high),
            ", ".join(f"killed, resumed at {first}" for first in begun),
            style="bold green" if place == 0 else "",
        )
    return table


def check_best(reader: CollectionReader, exp_id: str) -> tuple[float, float]:
    """Load a run's best weights and test them anew.

    Returns:
        Accuracy on the validation and on the test digits.

    Raises:
        DemoError: One is not exactly what the run had logged.
    """
    import digits  # here: with torch and scikit-learn it takes longer to import than all the rest

    logged = reader.stores[exp_id]["result"].df.iloc[-1]
    width = int(reader.stores[exp_id]["metadata"].df["width"].iloc[0])
    best = reader.stores[exp_id]["best"]
    model = digits.make_model(width)
    model.load_state_dict(best.get_state_dict(best.df["weights"].iloc[-1]))
    splits = digits.load_splits()
    _, validation = digits.evaluate(model, splits["val"])
    _, test = digits.evaluate(model, splits["test"])
    if (validation, test) != (logged["val_accuracy"], logged["test_accuracy"]):
        raise DemoError(f"{exp_id}: accuracy is {validation} and {test}, logged was {dict(logged)}")
    return validation, test


def draw(reader: CollectionReader, path: Path) -> None:
    """Draw accuracy over epochs: a panel for each learning rate, a line for each width."""
    runs = reader.df("metadata").sort_values(["lr", "width"])
    epochs = reader.df("epochs").merge(runs, on="exp_id")
    resumed = reader.df("sessions").merge(runs, on="exp_id").query("first_epoch > 0")
    rates, widths = runs["lr"].unique(), sorted(runs["width"].unique())
    shades = mpl.colormaps["viridis_r"]
    colors = {width: shades(0.3 + 0.6 * at / len(widths)) for at, width in enumerate(widths)}

    size = (1.5 + 3.5 * len(rates), 4.3)
    figure, row = plt.subplots(1, len(rates), sharey=True, squeeze=False, figsize=size, layout="constrained")
    for panel, rate in zip(row[0], rates, strict=True):
        for width, curve in epochs[epochs["lr"] == rate].groupby("width"):
            panel.plot(curve["epoch"], curve["val_accuracy"], color=colors[width], label=width)
        for run in resumed[resumed["lr"] == rate].itertuples():
            panel.axvline(run.first_epoch, color=colors[run.width], linestyle=":")
            note = f" {run.width} units:\n killed, resumed"
            panel.text(run.first_epoch, 0.71, note)
        panel.set(title=f"learning rate {rate:g}", xlabel="epoch", ylim=(0.7, 1))
        panel.yaxis.set_major_locator(mpl.ticker.MultipleLocator(0.05))
        panel.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    row[0][0].set_ylabel("accuracy on 397 validation digits")
    row[0][-1].legend(title="hidden units", loc="lower right")
    figure.suptitle("One hidden layer on handwritten digits", fontweight="bold")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def run_demo(out: Path, jobs: list[Job], epochs: int, workers: int) -> None:
    """All of it.

    Raises:
        DemoError: Something does not hold.
    """
    console.rule(f"{len(jobs)} networks, {workers} processes at a time", align="left")
    console.print(f"Logging to {out}", soft_wrap=True)
    Trainer(out, epochs).train(jobs, workers)

    console.print()
    console.rule("What they logged", align="left")
    with CollectionReader(out) as reader:
        check_epochs(reader.df("epochs"), jobs, epochs)
        runs = reader.df("result").merge(reader.df("metadata"), on="exp_id")
        runs = runs.sort_values(["val_accuracy", "test_accuracy"], ascending=False)
        console.print(compare(reader, runs))
        console.print(f"Every run has epochs 0 to {epochs - 1}, each of them once.")
        best = runs["exp_id"].iloc[0]
        validation, test = check_best(reader, best)
        console.print(
            f"Loaded the weights of {best} again: {validation:.2%} on validation digits, {test:.2%} "
            "on test digits, exactly as logged."
        )
        draw(reader, out / "comparison.png")
    console.print(f"Drew {out / 'comparison.png'}\n", soft_wrap=True)
    console.rule("What to type next", align="left")
    console.print(shlex.join(tensorboard_command(out)), soft_wrap=True)


def tensorboard_command(out: Path) -> list[str]:
    """What compares the runs in TensorBoard, spelt so that it works in this shell as it is."""
    program = Path(sys.executable).with_name("cox-tensorboard")
    found = [str(program)] if program.exists() else [sys.executable, "-m", "cox.tensorboard_view"]
    found[0] = min(found[0], os.path.relpath(found[0]), key=len)
    return [*found, "--logdir", str(out), "--format-str", "seed-{seed}"]  # lr and width are in exp_id


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a new folder; default: output/demo-<time>")
    parser.add_argument("--lr", type=float, nargs="+", default=[0.003, 0.03, 0.3])
    parser.add_argument("--width", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    out = args.out or Path("output", time.strftime("demo-%Y%m%d-%H%M%S"))
    out.mkdir(parents=True)
    jobs = [Job(lr, width) for lr, width in itertools.product(args.lr, args.width)]
    mpl.use("Agg")  # a picture needs no screen
    try:
        run_demo(out, jobs, args.epochs, args.workers)
    except DemoError as error:
        sys.exit(f"demo: FAILED: {error}")


if __name__ == "__main__":
    main()
