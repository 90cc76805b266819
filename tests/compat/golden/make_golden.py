"""Write golden stores with the *published* upstream package ``cox``.

Our own reader goes through h5py; these stores were written by upstream itself, through pandas and
PyTables, so that the reader can be compared with files it had no hand in. This script therefore
runs in an environment that holds upstream (``pip install --no-deps cox==0.2`` and so on, see
README.md), never in this project's own one, and must stay valid Python 3.6.

It writes ``DEST/LABEL/<exp_id>/`` with an ``expected.json`` beside each ``store.h5``, and
``DEST/LABEL/VERSIONS.json``. The experiments are::

    everything   every column type, odd names, objects, pickles, torch states
    continued    closed, reopened in another session, continued
    empty        opened and closed again: no table
    large        10,000 rows in one table

All of a store's files are left as upstream wrote them, byte for byte. Only the host name in the
names of the TensorBoard event files is replaced, before they are written, and directories that are
left empty receive a ``.keep``, since git would drop them.

Run it from this directory and with relative paths, so that nothing of the machine gets recorded::

    python make_golden.py --label py39-pandas1.5-tables3.7-cox0.2 --brief --experiments everything
"""

import argparse
import collections
import datetime
import hashlib
import importlib
import json
import platform
import re
import shutil
import socket
import sys
import types
import warnings
from pathlib import Path

import numpy as np

FORMAT_VERSION = 1
HOST_NAME = "golden-host"
EXPERIMENTS = ("everything", "continued", "empty", "large")
LARGE_ROWS = 10000
LARGE_SAMPLE = (0, 1, 2, 4999, 9998, 9999)
ARRAY_DATA_LIMIT = 100
REPR_LIMIT = 120
LINE_LENGTH = 90

# What a user's own script defines. It is compiled under a made-up file name because dill stores
# the file name of every function in the pickle, and since Python 3.9 a script's own is absolute.
EXPERIMENT_SCRIPT = """
class Point:
    'Nothing but data: its pickle holds no bytecode.'
    scale = 3


class Line:
    slope = 2.0

    def at(self, x):
        return self.slope * x


double = lambda x: 2 * x


def add_scale(x, scale=10):
    return x + scale
"""


def install_torch_stub():
    """Put a stand-in for torch on the import path where the real one is absent.

    Upstream imports torch at module level but needs no more than these names for a store without
    PYTORCH_STATE columns.

    Returns:
        Whether the real torch is there.
    """
    try:
        importlib.import_module("torch")
    except ImportError:
        stub = types.ModuleType("torch")
        stub.Tensor = type("Tensor", (), {})
        stub.save = stub.load = None
        sys.modules["torch"] = stub
        return False
    return True


# ---------------------------------------------------------------------------------------------
# The encoding of expected.json (described in README.md)
# ---------------------------------------------------------------------------------------------


def encode_float(value):
    """Return a float's exact text: ``float.hex``, or 'nan', 'inf', '-inf'."""
    return float(value).hex()


def encode_scalar(value):
    """Encode the value of a float, int, str or bool column (numpy scalars too)."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return encode_float(value)
    return str(value)


def encode_array(array):
    """Encode a numpy array: its bytes' digest, and the values themselves while they are few."""
    ordered = np.ascontiguousarray(array)
    encoded = {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(ordered.tobytes()).hexdigest(),
    }
    if array.size <= ARRAY_DATA_LIMIT:
        encoded["data"] = [encode_scalar(item) for item in ordered.ravel()]
    return {"ndarray": encoded}


def encode_object(value):
    """Encode any value of an OBJECT, PICKLE or PYTORCH_STATE column as ``{tag: content}``."""
    kind = type(value)
    if value is None:
        return {"none": None}
    if kind in (bool, int, float, str):
        return {kind.__name__: encode_scalar(value)}
    if kind in (list, tuple):
        return {kind.__name__: [encode_object(item) for item in value]}
    if kind in (set, frozenset):
        return {kind.__name__: [encode_object(item) for item in sorted(value, key=repr)]}
    if isinstance(value, dict):
        pairs = [[encode_object(key), encode_object(item)] for key, item in value.items()]
        return {kind.__name__: pairs}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind in (datetime.datetime, datetime.date):
        return {kind.__name__: value.isoformat()}
    if kind is complex:
        return {"complex": [encode_float(value.real), encode_float(value.imag)]}
    if kind is np.ndarray:
        return encode_array(value)
    if isinstance(value, np.generic):
        return {"numpy": {"dtype": value.dtype.str, "value": encode_scalar(value)}}
    if hasattr(type(value), "detach"):
        return {"tensor": encode_array(value.detach().numpy())["ndarray"]}
    if callable(value):
        return {"callable": {"name": value.__name__, "of_1.5": encode_object(value(1.5))}}
    attributes = encode_object(dict(vars(value)))
    return {"instance": {"class": kind.__name__, "attributes": attributes}}


def type_name(column_type):
    """Name a schema entry: 'float', '__object__', 'numpy.float32'."""
    if isinstance(column_type, str):
        return column_type
    if column_type.__module__ == "builtins":
        return column_type.__name__
    return column_type.__module__ + "." + column_type.__name__


# ---------------------------------------------------------------------------------------------
# Writing, and remembering what was written
# ---------------------------------------------------------------------------------------------


class Experiment:
    """One upstream store together with a record of all that was put into it."""

    def __init__(self, folder, exp_id):
        """Open the store ``folder/exp_id`` with upstream.

        Args:
            folder: the directory of the label.
            exp_id: the name of the run.
        """
        self.folder = str(folder)
        self.exp_id = exp_id
        self.schemas = {}
        self.rows = {}
        self.trusted = set()
        self.store = None
        self.open()

    def open(self):
        """Open the store, or open it again."""
        from cox.store import Store

        self.store = Store(self.folder, self.exp_id)

    def add_table(self, name, schema, trusted=False):
        """Declare a table; ``trusted`` says that its objects need more than plain data."""
        self.store.add_table(name, schema)
        self.schemas.setdefault(name, schema)
        self.rows.setdefault(name, [])
        if trusted:
            self.trusted.add(name)

    def adopt(self, name):
        """Take up a table that upstream made by another call than ``add_table``."""
        self.schemas[name] = self.store[name].schema
        self.rows[name] = []

    def append(self, name, row):
        """Append one row through upstream and remember it."""
        self.store[name].append_row(row)
        self.rows[name].append(row)

    def log(self, name, row):
        """Append one row the way training loops do, to TensorBoard also."""
        self.store.log_table_and_tb(name, row)
        self.store[name].flush_row()
        self.rows[name].append(row)

    def close(self):
        """Close the store and its TensorBoard writer, which upstream forgets."""
        self.store.tensorboard.close()
        self.store.close()

    def expected(self):
        """Describe the closed store: what was written, and how upstream itself reads it.

        Returns:
            The content of expected.json.
        """
        from cox.store import Store

        reader = Store(self.folder, self.exp_id, mode="r")
        try:
            flushed = [name for name in self.schemas if self.rows[name]]
            if set(reader.tables) != set(flushed):
                raise RuntimeError(f"upstream lists {list(reader.tables)!r}, not {flushed!r}")
            return {
                "format": FORMAT_VERSION,
                "exp_id": self.exp_id,
                "tables": {name: self.expected_table(name, reader[name]) for name in flushed},
                "never_flushed": sorted(set(self.schemas) - set(flushed)),
            }
        finally:
            reader.close()

    def expected_table(self, name, table):
        """Describe one table."""
        schema, frame = self.schemas[name], table.df
        rows, deviations = [], []
        for number, written in enumerate(self.rows[name]):
            rows.append([])
            for column, column_type in schema.items():
                read = frame[column].iloc[number]
                rows[-1].append(encode_cell(column_type, written[column], read))
                if differs(column_type, written[column], read):
                    deviations.append([number, column, type(read).__name__, encode_scalar(read)])
        described = {
            "columns": list(schema),
            "schema": {column: type_name(kind) for column, kind in schema.items()},
            "trusted": name in self.trusted,
            "nrows": len(rows),
            "frame": {
                "columns": list(frame.columns),
                "index": [int(frame.index[0]), int(frame.index[-1])],
                "dtypes": {column: str(frame[column].dtype) for column in frame},
            },
            "read_differently_by_upstream": deviations,
        }
        described.update(digest_rows(rows) if len(rows) == LARGE_ROWS else {"rows": rows})
        return described


def encode_cell(column_type, written, read):
    """Encode one cell; for an object also the text that stands in the file."""
    if isinstance(column_type, str):
        if hasattr(type(written), "state_dict"):
            written = written.state_dict()
        text = re.sub(" at 0x[0-9a-f]+", "", repr(written))[:REPR_LIMIT]
        return {"stored": str(read), "repr": text, "value": encode_object(written)}
    return encode_scalar(column_type(written))


def differs(column_type, written, read):
    """Tell whether upstream itself reads another value than it wrote: a text 'nan' becomes NaN."""
    if isinstance(column_type, str):
        return False
    value = column_type(written)
    if isinstance(value, str) != isinstance(read, str):
        return True
    return encode_scalar(value) != encode_scalar(read)


def digest_rows(rows):
    """Replace many rows by their digest and a sample."""
    lines = "\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    sample = {str(number): rows[number] for number in LARGE_SAMPLE}
    return {"sample": sample, "sha256": hashlib.sha256(lines.encode("utf-8")).hexdigest()}


# ---------------------------------------------------------------------------------------------
# The experiments
# ---------------------------------------------------------------------------------------------


def write_types(exp):
    """Write the four plain types at their extremes.

    Upstream fixes the width of a str column at the first row, so the widest value comes first.
    """
    exp.add_table("types", {"f": float, "i": int, "s": str, "b": bool})
    floats = [0.1, float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308]
    ints = [0, -(2**63), 2**63 - 1, -1, 2**53 + 1, 1, 7]
    strings = ["widest " * 6, "nan", "", "\u00e9\u6f22", " padded ", "two\nlines", "\U0001f600"]
    for n, (f, i, s) in enumerate(zip(floats, ints, strings)):  # noqa: B905 - for Python 3.6
        exp.append("types", {"f": f, "i": i, "s": s, "b": n % 2 == 0})


def write_more_types(exp):
    """Write several columns of a type, out of order, and columns of numpy types."""
    columns = [("f1", float), ("s1", str), ("i1", int), ("b1", bool)]
    columns += [("f2", float), ("s2", str), ("i2", int), ("b2", bool)]
    exp.add_table("interleaved", collections.OrderedDict(columns))
    for n in range(3):
        row = {"f1": n + 0.25, "s1": f"one-{n}", "i1": n, "b1": n == 1}
        row.update({"f2": -n / 3.0, "s2": f"second-{n}", "i2": -n, "b2": n != 1})
        exp.append("interleaved", row)

    # The ints of "u" are too large for int64: pandas makes the column unsigned.
    exp.add_table("numpy_schema", {"f4": np.float32, "i4": np.int32, "f8": np.float64, "u": int})
    for n in range(3):
        exp.append("numpy_schema", {"f4": n / 3.0, "i4": -n, "f8": n / 3.0, "u": 2**64 - 1 - n})


def write_odd_columns(exp):
    """Write columns whose names are no Python identifiers, or are names of the file format."""
    odd = collections.OrderedDict()
    odd.update([("f(x)", float), ("mx^2", float), ("a b", int), ("a/b", float)])
    odd.update([("\u00e9\u6f22", str), ("lambda", float), ("5_rewards", int), ("index_", int)])
    odd.update([("norm(w_t)", float), ("FW gap", float), ("index", int), ("values_block_0", bool)])
    exp.add_table("odd_columns", odd)
    for n in range(2):
        row = {"f(x)": n + 0.5, "mx^2": n * 2.0, "a b": n + 1, "a/b": n / 4.0}
        row.update({"\u00e9\u6f22": f"text {n}", "lambda": 0.1 * n, "5_rewards": 5 + n})
        row.update({"index_": 100 + n, "norm(w_t)": 3.0, "FW gap": -1.5})
        row.update({"index": 200 + n, "values_block_0": n == 0})
        exp.append("odd_columns", row)


def write_odd_tables(exp):
    """Write tables whose names are no Python identifiers, and one without a row."""
    for name in ("L1 ball", "eval/clean"):
        exp.add_table(name, {"radius": float, "steps": int})
        exp.append(name, {"radius": 0.5, "steps": 10})
        exp.append(name, {"radius": 1.0, "steps": 20})
    exp.add_table("never_flushed", {"loss": float, "tag": str})
    exp.store["never_flushed"].update_row({"loss": 0.5})


def write_metadata(exp):
    """Write what a script writes about itself: one row, its schema taken from the arguments."""
    arguments = {"dataset": "cifar", "lr": 0.1, "epochs": 200, "adv": True, "drops": [50, 100]}
    exp.store.add_table_like_example("metadata", arguments)
    exp.adopt("metadata")
    exp.append("metadata", arguments)


def write_training(exp):
    """Write metadata from ``Parameters`` (one OBJECT column), and what a training loop logs."""
    from cox.utils import Parameters

    arguments = vars(Parameters({"lr": 0.1, "name": "x", "eps": None}))
    exp.store.add_table_like_example("parameters", arguments)
    exp.adopt("parameters")
    exp.append("parameters", arguments)

    exp.add_table("result", {"loss": float, "accuracy": float})
    for n in range(3):
        exp.log("result", {"loss": 1.0 / (n + 1), "accuracy": np.float32(n / 3.0)})


def plain_objects():
    """Return (kind, value) pairs that hold plain data only.

    The pair with the longest kind and the longest stored text comes first: upstream takes none
    longer afterwards, and with pandas 3 each str column has a width of its own.
    """
    nested = {"layers": [{"name": f"fc{n}", "shape": (n, n + 1)} for n in range(4)]}
    nested["text"] = "widest " * 24
    return [
        ("nested containers", nested),
        ("list", [1, 2.5, "three", None, True]),
        ("dict", {"a": 1, "b": [float("nan"), float("inf"), -0.0], 3: "three"}),
        ("set", {"x", "y", "z"}),
        ("tuple", (1, (2, (3,)))),
        ("frozenset", frozenset([1, 2])),
        ("none", None),
        ("str", "plain \u00e9\u6f22"),
        ("empty str", ""),
        ("int", 2**70),
        ("bool", True),
        ("float", float("nan")),
        ("complex", 1 - 2j),
        ("bytes", b"\x00\xff"),
        ("datetime", datetime.datetime(2019, 6, 1, 12, 30, 15, 250)),
        ("ordered dict", collections.OrderedDict([("b", 1), ("a", 2)])),
        ("array", np.arange(6, dtype=np.float64).reshape(2, 3) / 7),
        ("fortran array", np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3))),
        ("str array", np.array(["a", "\u00e9\u6f22"])),
        ("0-d array", np.array(1.5)),
        ("numpy float", np.float32(0.1)),
        ("numpy int", np.int64(-3)),
        ("numpy bool", np.bool_(True)),
    ]


def own_objects():
    """Return instances of a script's own classes, its functions, and cox's Parameters.

    The longest comes first, as in `plain_objects`.
    """
    from cox.utils import Parameters

    line, point = Line(), Point()  # noqa: F821 - defined by EXPERIMENT_SCRIPT
    line.name, point.xy = "steep", [1.5, -2.0]
    parameters = Parameters({"lr": 0.1, "name": "x"})
    return [line, point, double, add_scale, parameters]  # noqa: F821


def write_objects(exp):
    """Write an OBJECT column of plain data, which decodes without trust."""
    from cox.store import OBJECT

    exp.add_table("objects", {"kind": str, "value": OBJECT})
    for kind, value in plain_objects():
        exp.append("objects", {"kind": kind, "value": value})


def write_own_objects(exp):
    """Write what only a reader decodes who trusts the store: its pickles import or define code."""
    from cox.store import OBJECT, PICKLE

    schema = {"number": int, "object": OBJECT, "pickle": PICKLE}
    exp.add_table("own_objects", schema, trusted=True)
    for number, value in enumerate(own_objects()):
        exp.append("own_objects", {"number": number, "object": value, "pickle": value})


def write_pickles(exp):
    """Write a PICKLE column of plain data."""
    from cox.store import PICKLE

    exp.add_table("pickles", {"kind": str, "value": PICKLE})
    exp.append("pickles", {"kind": "dictionary", "value": {"a": [1, 2], "b": {"c": None}}})
    array = np.sin(np.arange(1000, dtype=np.float64))
    exp.append("pickles", {"kind": "array", "value": array})


def write_torch(exp):
    """Write a PYTORCH_STATE column: a state dict, then a module, of fixed weights."""
    import torch

    from cox.store import PYTORCH_STATE

    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).reshape(2, 3) / 7)
        model.bias.copy_(torch.tensor([-0.5, 0.25]))
    exp.add_table("checkpoints", {"step": int, "state": PYTORCH_STATE})
    exp.append("checkpoints", {"step": 0, "state": model.state_dict()})
    exp.append("checkpoints", {"step": 1, "state": model})


def make_everything(folder, brief, with_torch):
    """Write the run ``everything``, or the part of it that differs between versions."""
    exp = Experiment(folder, "everything")
    steps = [write_types, write_odd_columns, write_objects, write_own_objects]
    if not brief:
        steps += [write_more_types, write_odd_tables, write_metadata, write_training]
        steps += [write_pickles] + [write_torch] * with_torch
    for step in steps:
        step(exp)
    Path(exp.store.save_dir, "note.txt").write_text("what the user saves\n")
    return exp


def make_continued(folder):
    """Write the run ``continued``: a second session goes on with the tables of the first."""
    exp = Experiment(folder, "continued")
    schema = {"epoch": int, "loss": float, "tag": str, "extra": exp.store.OBJECT}
    exp.add_table("result", schema)
    exp.add_table("probe", {"value": float})
    for n in range(3):
        exp.append("result", {"epoch": n, "loss": 1.0 / (n + 1), "tag": "first", "extra": [n]})
        exp.append("probe", {"value": n / 2.0})
    exp.close()

    exp.open()
    exp.add_table("result", schema)  # as a script does that is simply started again
    exp.add_table("added", {"flag": bool})
    for n in range(3, 5):
        exp.append("result", {"epoch": n, "loss": 1.0 / (n + 1), "tag": "again", "extra": [n]})
        exp.append("probe", {"value": n / 2.0})
        exp.append("added", {"flag": n == 3})
    return exp


def make_large(folder):
    """Write the run ``large``."""
    exp = Experiment(folder, "large")
    exp.add_table("steps", {"step": int, "loss": float, "tag": str})
    for n in range(LARGE_ROWS):
        row = {"step": n, "loss": 1.0 / (n + 1), "tag": f"batch-{n * 7919 % LARGE_ROWS:05d}"}
        exp.append("steps", row)
    return exp


def versions(with_torch):
    """Name the versions of all that had a part in writing."""
    names = ["pandas", "tables", "numpy", "dill", "cox", "tensorboardX"] + ["torch"] * with_torch
    found = collections.OrderedDict(python=platform.python_version())
    found.update((name, distribution_version(name)) for name in names)
    found["hdf5"] = importlib.import_module("tables").hdf5_version
    if not with_torch:
        found["torch"] = "stub"
    return found


def distribution_version(name):
    """Return the version of an installed distribution, in old Pythons too."""
    try:
        from importlib.metadata import version
    except ImportError:
        import pkg_resources

        return pkg_resources.get_distribution(name).version
    return version(name)


def keep_empty_directories(folder):
    """Give every empty directory a ``.keep``."""
    for path in list(folder.rglob("*")):
        if path.is_dir() and not any(path.iterdir()):
            (path / ".keep").touch()


def pretty(value, depth, indent="\n"):
    """Format JSON so that a row has a line for itself: what is short or deep is not broken up."""
    line = json.dumps(value)
    if depth == 0 or not isinstance(value, (dict, list)) or len(line) < LINE_LENGTH:
        return line
    inner = indent + " "
    if isinstance(value, list):
        items = [pretty(item, depth - 1, inner) for item in value]
        return "[" + inner + ("," + inner).join(items) + indent + "]"
    items = [json.dumps(key) + ": " + pretty(value[key], depth - 1, inner) for key in value]
    return "{" + inner + ("," + inner).join(items) + indent + "}"


def write_json(path, content):
    """Write a JSON file."""
    path.write_text(pretty(content, 4) + "\n")


def main():
    """Write one label."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dest", default="stores", help="directory of all labels")
    parser.add_argument("--label", required=True, help="name of the directory to (re)write")
    parser.add_argument("--brief", action="store_true", help="write few tables in `everything`")
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS[:3])
    arguments = parser.parse_args()

    with_torch = install_torch_stub()
    socket.gethostname = lambda: HOST_NAME
    warnings.simplefilter("ignore")
    exec(compile(EXPERIMENT_SCRIPT, "experiment.py", "exec"), globals())

    folder = Path(arguments.dest, arguments.label)
    shutil.rmtree(str(folder), ignore_errors=True)
    folder.mkdir(parents=True)
    make = {
        "everything": lambda: make_everything(folder, arguments.brief, with_torch),
        "continued": lambda: make_continued(folder),
        "empty": lambda: Experiment(folder, "empty"),
        "large": lambda: make_large(folder),
    }
    for exp_id in arguments.experiments:
        experiment = make[exp_id]()
        experiment.close()
        write_json(folder / exp_id / "expected.json", experiment.expected())
    write_json(folder / "VERSIONS.json", versions(with_torch))
    keep_empty_directories(folder)


if __name__ == "__main__":
    main()
