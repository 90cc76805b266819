"""What cox's own tests hold it to, for whoever writes a plug-in for it, or another implementation.

* `cox.testing.model`: a run as plain Python, and sessions of operations to do to it and to a store.
* `cox.testing.invariants`: what must hold of a run after a kill, and after a close.
* `cox.testing.faults`: make any call that changes the file system fail, or the process die at it.
* `run_machine`: a Hypothesis state machine that does anything to a store, in any order.

docs/TESTING.md shows them at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cox import extras

if TYPE_CHECKING:
    from cox.testing.machine import RunMachine
    from cox.testing.model import Stores

__all__ = ["run_machine"]


def run_machine(stores: Stores | None = None) -> type[RunMachine]:
    """Return a Hypothesis state machine that holds a run's stores against a model, whatever is done to them.

    Args:
        stores: How to open and treat the stores; cox's own, if it is not given.

    Raises:
        MissingExtraError: Hypothesis is not installed; says how to get it.

    Example:
        >>> TestMyStores = run_machine(MyStores()).TestCase
    """
    extras.needed("hypothesis", "testing", "the state machine of cox.testing")
    from cox.testing import machine

    if stores is None:
        return machine.RunMachine
    return type("RunMachine", (machine.RunMachine,), {"implementation": stores})
