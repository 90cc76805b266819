"""The directory of links that is handed to `tensorboard --logdir`.

One symbolic link for each run, called what TensorBoard is to call it; `--logdir_spec`, which is meant for
that, has no way to hold a comma or a colon. What the links lead to is never touched.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType


class LinkDirectory:
    """A temporary directory of symbolic links. It is there from the beginning, and gone after the block.

    Attributes:
        path: Where it is.

    Raises:
        OSError: It cannot be made.

    Example:
        >>> with LinkDirectory() as directory:
        ...     directory.add("lr-0.1-night", Path("runs/night/tensorboard").absolute())
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="cox-tensorboard-"))

    def add(self, name: str, target: Path) -> None:
        """Add a link.

        Args:
            name: What it is called: safe as a file name, and not taken.
            target: The directory of event files it leads to, absolute.
        """
        (self.path / name).symlink_to(target, target_is_directory=True)

    def update(self, targets: Mapping[str, Path]) -> None:
        """Have links of these names to these directories, and no others. Those that stay are not touched.

        The directory is made again if it is gone: systems clean up their temporary files.

        Raises:
            OSError: One cannot be made.
        """
        if not self.path.exists():
            self.path.mkdir(0o700)
        there = {path.name: path.readlink() for path in self.path.iterdir() if path.is_symlink()}
        for name in there.keys() - targets.keys():
            (self.path / name).unlink(missing_ok=True)
        for name, target in targets.items():
            if name not in there:
                self.add(name, target)
            elif there[name] != target:
                (self.path / name).unlink()
                self.add(name, target)

    def __enter__(self) -> LinkDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)  # of a link it removes the link
