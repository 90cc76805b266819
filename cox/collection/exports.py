"""Ways out to other engines. Each needs a package of its own, named in the error where it is missing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cox.errors import MissingExtraError, PredicateError, TableNotFoundError

if TYPE_CHECKING:
    import pandas as pd


def to_arrow(frame: pd.DataFrame) -> Any:
    """A frame as a `pyarrow.Table`, without its index.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = needed("pyarrow", "parquet")
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def to_polars(frame: pd.DataFrame) -> Any:
    """A frame as a `polars.DataFrame`, without its index.

    Raises:
        MissingExtraError: polars is not installed.
    """
    return needed("polars", "polars").from_arrow(to_arrow(frame))


def sql(query: str, tables: Mapping[str, Callable[[], pd.DataFrame]]) -> pd.DataFrame:
    """Ask DuckDB.

    Args:
        query: One statement, or several of which the last one gives the answer.
        tables: How to read each table there is. Those that the query mentions are read.

    Raises:
        MissingExtraError: duckdb is not installed.
        TableNotFoundError: It asks for a table that there is not.
        PredicateError: DuckDB does not understand it; shows where.
    """
    duckdb = needed("duckdb", "sql")
    if not query.strip(" ;\n\t"):
        raise PredicateError('an empty query: ask something, as in "select * from results limit 3"')
    with duckdb.connect() as connection:
        for name, read in tables.items():
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query, re.IGNORECASE):
                connection.register(name, to_arrow(read()))
        try:
            answer: pd.DataFrame = connection.execute(query).df()
        except duckdb.CatalogException as error:
            what = str(error).partition("\n")[0]
            raise TableNotFoundError(f"{what} There are {sorted(tables)}") from error
        except duckdb.Error as error:
            raise PredicateError(str(error)) from error
    return answer


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


def needed(module: str, extra: str) -> Any:
    """An optional package.

    Raises:
        MissingExtraError: It is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f"this needs {package}: pip install 'cox[{extra}]'") from error
