"""Train a small network on scikit-learn's handwritten digits: logged, checkpointed, resumable.

    python examples/digits.py --out output/digits --lr 0.03 --width 32 --exp-id lr-0.03-width-32

Kill it at any moment and type the same command again: it goes on from its last checkpoint, and its log
holds every epoch once, with the very numbers that a run in one piece would have logged.

What a run logs:

    metadata   one row: lr, width, seed
    sessions   a row for each process that worked on it, with the epoch it began at
    epochs     a row for each epoch, also sent to TensorBoard
    best       a row, with the weights, for each epoch that was better than all before
    result     one row, written last: a run that has it is complete
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cox import PYTORCH_STATE, Store

TABLES: dict[str, dict[str, Any]] = {
    "metadata": {"lr": float, "width": int, "seed": int},
    "sessions": {"first_epoch": int, "pid": int},
    "epochs": {
        "epoch": int,
        "train_loss": float,
        "val_loss": float,
        "val_accuracy": float,
        "seconds": float,
    },
    "best": {"epoch": int, "val_accuracy": float, "weights": PYTORCH_STATE},
    "result": {"best_epoch": int, "val_accuracy": float, "test_accuracy": float},
}
CHECKPOINT_EVERY = 5  # epochs
BATCH = 32


class Split(NamedTuple):
    """Images of shape (n, 64) from 0 to 1, and their labels of shape (n,)."""

    images: Tensor
    labels: Tensor


def load_splits() -> dict[str, Split]:
    """The 1,797 digits as `train` (1,000), `val` (397) and `test` (400), the same in every process."""
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = zip(("train", "val", "test"), order.split([1000, 397, 400]), strict=True)
    return {name: Split(images[rows], labels[rows]) for name, rows in parts}


def make_model(width: int) -> nn.Module:
    """A network with one hidden layer."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Loss and accuracy."""
    logits = model(split.images)
    right = (logits.argmax(dim=1) == split.labels).sum()
    return cross_entropy(logits, split.labels).item(), right.item() / len(split.labels)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, split: Split, shuffle_seed: int) -> float:
    """Go through the split once; returns the mean loss."""
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(shuffle_seed))
    total = 0.0
    for rows in order.split(BATCH):
        loss = cross_entropy(model(split.images[rows]), split.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(order)


def save_checkpoint(path: Path, next_epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Replace the checkpoint whole: whenever a kill comes, the old one or the new one is there."""
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as file:
        torch.save(
            {
                "next_epoch": next_epoch,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Fill model and optimizer from the checkpoint, if there is one; returns the epoch to begin with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["next_epoch"])


def declare(store: Store, **parameters: Any) -> None:
    """Declare the tables, which is harmless where they are there, and log the parameters once.

    Raises:
        SystemExit: The run is there, and has other parameters.
    """
    for name, schema in TABLES.items():
        store.add_table(name, schema)
    if not store["metadata"].nrows:
        store["metadata"].append_row(parameters)
    [logged] = store["metadata"].df.to_dict("records")
    if logged != parameters:
        raise SystemExit(f"{store.path} is a run with {logged}, not {parameters}")


def rewind(store: Store, first: int, epochs: int) -> None:
    """Have the tables and TensorBoard forget the epochs that were logged after the checkpoint."""
    store.rewind("epochs", step=first, column="epoch")
    store.rewind("best", step=first, column="epoch", purge_tensorboard=False)
    if first < epochs:
        store.rewind("result", nrows=0, purge_tensorboard=False)  # it was for fewer epochs
    store["sessions"].append_row({"first_epoch": first, "pid": os.getpid()})


def log_result(store: Store, model: nn.Module, test: Split) -> None:
    """Test the best weights, and log what comes out."""
    winner = store["best"].df.iloc[-1]
    model.load_state_dict(store["best"].get_state_dict(winner["weights"]))
    _, test_accuracy = evaluate(model, test)
    store["result"].append_row(
        {
            "best_epoch": winner["epoch"],
            "val_accuracy": winner["val_accuracy"],
            "test_accuracy": test_accuracy,
        }
    )


def train(out: str, lr: float, width: int, epochs: int, seed: int, exp_id: str | None = None) -> None:
    """Train one network up to a number of epochs, from where an earlier process got to."""
    torch.manual_seed(seed)
    splits, model = load_splits(), make_model(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    with Store(out, exp_id) as store:
        declare(store, lr=lr, width=width, seed=seed)
        checkpoint = Path(store.save_dir, "checkpoint.pt")
        first = load_checkpoint(checkpoint, model, optimizer)
        rewind(store, first, epochs)
        best = max(store["best"].df["val_accuracy"], default=-1.0)

        for epoch in range(first, epochs):
            started = time.perf_counter()
            train_loss = train_epoch(model, optimizer, splits["train"], seed * 100_000 + epoch)
            val_loss, val_accuracy = evaluate(model, splits["val"])

            # three columns to the table and to TensorBoard, two to the table alone, one row
            curves = {"train_loss": train_loss, "val_loss": val_loss, "val_accuracy": val_accuracy}
            store.log_table_and_tb("epochs", curves)
            seconds = time.perf_counter() - started
            store["epochs"].update_row({"epoch": epoch, "seconds": seconds})
            store["epochs"].flush_row()
            print(f"epoch {epoch:3}  loss {train_loss:.4f}  accuracy {val_accuracy:.4f}", flush=True)

            if val_accuracy > best:
                best = val_accuracy
                weights = model.state_dict()
                store["best"].append_row({"epoch": epoch, "val_accuracy": val_accuracy, "weights": weights})
            if (epoch + 1) % CHECKPOINT_EVERY == 0 or epoch + 1 == epochs:
                save_checkpoint(checkpoint, epoch + 1, model, optimizer)
                store.tensorboard.flush()  # its points before the checkpoint are not drawn again

        if not store["result"].nrows:
            log_result(store, model, splits["test"])
        print(store["result"].df.to_string(index=False))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="output/digits", help="the folder of runs")
    parser.add_argument("--lr", type=float, default=0.03, help="learning rate")
    parser.add_argument("--width", type=int, default=32, help="hidden units")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exp-id", help="the run to begin or to go on with; default: a new one")
    torch.set_num_threads(1)  # it is small, and others train beside it
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
