"""The directory of links that is handed to `tensorboard --logdir`.

One symbolic link for each run, called what TensorBoard is to call it; `--logdir_spec`, which is meant for
that, has no way to hold a comma or a colon. What the links lead to is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cox.tensorboard.view.scratch import Scratch


class LinkDirectory(Scratch):
    """A temporary directory of symbolic links. It is there from the beginning, and gone after the block.

    Attributes:
        path: Where it is.

    Raises:
        OSError: It cannot be made.

    Example:
        >>> with LinkDirectory() as directory:
        ...     directory.update({"lr-0.1-night": Path("runs/night/tensorboard").absolute()})
    """

    def __init__(self) -> None:
        super().__init__("cox-tensorboard-")

    def update(self, targets: Mapping[str, Path]) -> None:
        """Have links of these names to these directories, and no others. Those that stay are not touched.

        The directory is made again if it is gone.

        Args:
            targets: Names that are safe as file names to directories of event files, absolute.

        Raises:
            OSError: One cannot be made.
        """
        self.renew()
        there = {path.name: path.readlink() for path in self.path.iterdir() if path.is_symlink()}
        for name, target in there.items():
            if targets.get(name) != target:
                (self.path / name).unlink(missing_ok=True)
        for name, target in targets.items():
            if there.get(name) != target:
                (self.path / name).symlink_to(target, target_is_directory=True)
