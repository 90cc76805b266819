"""Unpickling that runs nobody's code: plain data only, through an allow-list.

Plain data is None, numbers, text, bytes, the builtin containers and those of `collections`, numpy
arrays, scalars and dtypes, dates and times, decimals, fractions and paths. What HDF5 files of pandas
and PyTables keep in pickled attributes is plain data, and so is most of what people log as objects.

`dumps` and `Pickler` tell whether what they wrote is plain, `loads` refuses everything that is not.
"""

from cox.safe_pickle.allowlist import PROTOCOL, Pickler, dumps, load, loads, names_in, references
from cox.safe_pickle.modules import is_importable
from cox.safe_pickle.refusal import NotPlainError

__all__ = [
    "PROTOCOL",
    "NotPlainError",
    "Pickler",
    "dumps",
    "is_importable",
    "load",
    "loads",
    "names_in",
    "references",
]
