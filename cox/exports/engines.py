"""Ways out to other engines. Each needs a package of its own, named in the error where it is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cox.analysis.parameters import Stored
from cox.collection import shapes
from cox.collection.shapes import Shape
from cox.errors import PredicateError, TableNotFoundError, there_are
from cox.extras import needed
from cox.objects.unreadable import Unreadable
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

#: A query with one of these words asks which tables there are.
_LISTING = re.compile(
    r"(?<!\w)(show|describe|information_schema|duckdb_\w+|sqlite_master)(?!\w)", re.IGNORECASE
)
#: What DuckDB says of a table that it does not know.
_UNKNOWN = re.compile("with name (.+) does not exist")


def to_polars(table: Any) -> Any:
    """A `pyarrow.Table` as a `polars.DataFrame`.

    Raises:
        MissingExtraError: polars is not installed.
    """
    return needed("polars", "polars").from_arrow(table)


def of_runs(
    values: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any] | None = None,
    common: Mapping[str, Shape] | None = None,
) -> Any:
    """A row for each run as a `pyarrow.Table`: the parameters of runs, some facts, and `exp_id`.

    A parameter that is called `exp_id`, or like a fact, becomes `params.exp_id`. Values without a type in
    common become text.

    Args:
        values: The parameters of each run, as `comparable` gives them.
        facts: Columns of other facts, which come first, as Arrow arrays.
        common: All parameters and what they are, where there are more than those of these runs.
    """
    pa = needed("pyarrow", "parquet")
    columns = {EXP_ID: pa.array(list(values), type=pa.string()), **(facts or {})}
    taken = set(columns)
    for name, shape in (shapes_of_runs(values.values()) if common is None else common).items():
        cells = [_leaving(own, name) for own in values.values()]
        columns[f"params.{name}" if name in taken else name] = shapes.array_of_values(cells, shape)
    return pa.table(columns)


def shapes_of_runs(values: Iterable[Mapping[str, Any]]) -> dict[str, Shape]:
    """What each parameter of some runs is."""
    found: dict[str, Shape] = {}
    for own in values:
        for name in own:
            found[name] = shapes.join(found.get(name, "null"), shapes.of_values([_leaving(own, name)]))
    return found


def _leaving(values: Mapping[str, Any], name: str) -> Any:
    """A parameter as other engines want it; what they have nothing for is text that tells it apart."""
    value = values.get(name)
    if isinstance(value, Stored):
        value = Unreadable(type(value.value).__name__, value.digest)
    return shapes.plain(value)


def sql(
    query: str,
    tables: Mapping[str, Callable[[], Any]],
    without_rows: Callable[[str], Any] | None = None,
) -> pd.DataFrame:
    """Ask DuckDB.

    Args:
        query: One statement, or several of which the last one gives the answer.
        tables: How to read each table there is, as a `pyarrow.Table`. Those that the query mentions are read.
        without_rows: How to get a table without its rows: for those that the query does not mention where
            it asks which tables there are. Without it they are read.

    Raises:
        MissingExtraError: duckdb is not installed.
        TableNotFoundError: It asks for a table that there is not.
        PredicateError: DuckDB does not understand it; shows where. Or it mentions tables, or columns, that
            DuckDB cannot tell apart, for they differ in nothing but case.
    """
    duckdb = needed("duckdb", "sql")
    listing = _LISTING.search(query) is not None
    mentioned = [name for name in tables if _mentions(query, name)]
    shown = list(tables) if listing else mentioned
    _refuse_alike([name for name in tables if name.lower() in {one.lower() for one in shown}], "tables")
    with duckdb.connect() as connection:
        connection.execute("set python_enable_replacements=false")  # or a name may mean a variable in here
        for name in shown:
            rowless = without_rows if name not in mentioned else None
            table = tables[name]() if rowless is None else rowless(name)
            if name in mentioned:
                _refuse_alike(table.column_names, f"columns of table {name!r}")
            connection.register(name, table)
        try:
            found = connection.execute(query)
            if found is None:
                raise PredicateError('an empty query: ask something, as in "select * from results limit 3"')
            answer: pd.DataFrame = found.df()
        except duckdb.CatalogException as error:
            what = str(error).partition("\n")[0]
            unknown = _UNKNOWN.search(what)
            known = there_are(sorted(tables), "" if unknown is None else unknown[1])
            raise TableNotFoundError(f"{what.rstrip('!')}; {known}") from error
        except duckdb.Error as error:
            raise PredicateError(str(error)) from error
    return answer


def _mentions(query: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query, re.IGNORECASE) is not None


def _refuse_alike(names: Iterable[str], what: str) -> None:
    """Raise if names differ in nothing but case.

    Raises:
        PredicateError: Says `what` they are, and names them.
    """
    for _, group in groupby(sorted(names, key=str.lower), key=str.lower):
        alike = sorted(group)
        if len(alike) > 1:
            raise PredicateError(f"SQL cannot tell the {what} apart that differ in case only: {alike}")


def to_dask(
    read: Callable[[list[str]], pd.DataFrame], groups: Sequence[list[str]], meta: pd.DataFrame
) -> Any:
    """A lazy `dask.dataframe.DataFrame`: a partition for each group of runs.

    Args:
        read: Reads the rows of one group, wherever dask computes.
        groups: The names of each group's runs.
        meta: The rows of no run, with the columns and their types.

    Raises:
        MissingExtraError: dask is not installed.
    """
    return needed("dask.dataframe", "dask").from_map(read, groups or [[]], meta=meta)
