"""Tables of any library, and files of tables, as Arrow tables.

Arrow's types say what a column holds, its files are read by all cores, and its columns become arrays
without a copy. pandas, polars and Hugging Face convert to it and from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..replay import ConfigError, DataError
from ..replay.suggestions import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".arrow", ".feather")
"""Endings of files of tables; `.csv.gz` and `.tsv.gz` too."""

_NA = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A")
_ROW_NUMBERS = ("", "Unnamed: 0", "__index_level_0__")  # What pandas's row numbers are saved as.
_BLOCK = 2**24  # Bytes of a text file that are read at once.
_OPTIONS = ("sep", "decimal", "encoding", "na_values")
_CALLED = {"separator": "sep", "delimiter": "sep", "null_values": "na_values"}  # Elsewhere.


def table_suffix(path: str | Path) -> str | None:
    """The ending by which a path names a file of a table; None: it names none.

    >>> table_suffix("runs/train.csv.gz"), table_suffix("train.csv"), table_suffix("train")
    ('.csv', '.csv', None)
    """
    name = str(path).lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def is_text(path: Path) -> bool:
    """Whether a path names a text file, which is read with options."""
    return table_suffix(path) in (".csv", ".tsv")


def pyarrow(what: str) -> Any:
    """The pyarrow module.

    Args:
        what: What is read with it, for the error.

    Raises:
        DataError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
    except ImportError as error:
        raise DataError(
            f"{what} is read with pyarrow, which is not installed: pip install 'antelope-ml[tables]'"
        ) from error
    return pyarrow


def as_arrow(table: Any, name: str) -> pa.Table:
    """A data frame of pandas or polars (a lazy one is collected), or an Arrow table, as an Arrow table.

    Args:
        name: What errors call it.

    Raises:
        DataError: If it has columns of the same name, of several levels, sparse ones, or ones of
            several types.
    """
    arrow = pyarrow(name)
    if type(table).__name__ == "LazyFrame":
        table = table.collect()
    if hasattr(table, "to_arrow"):  # polars
        try:
            return table.to_arrow()
        except arrow.ArrowInvalid as error:  # Types of polars's own, such as Int128.
            raise DataError(
                f"{name[:1].upper()}{name[1:]} has columns of a type that Arrow lacks ({error}). Cast them: "
                "table.with_columns(polars.col(NAME).cast(polars.Int64))."
            ) from error
    if isinstance(table, arrow.Table):
        _check_names(table.column_names, name)
        return table
    names = table.columns
    if getattr(names, "nlevels", 1) > 1:
        raise DataError(
            f"The columns of {name} have {names.nlevels} levels (a MultiIndex). Give each one name: "
            "table.columns = ['_'.join(map(str, name)) for name in table.columns]."
        )
    _check_names([str(column) for column in names], name)
    if sparse := [
        str(c) for c, dtype in table.dtypes.items() if type(dtype).__name__ == "SparseDtype"
    ]:
        raise DataError(
            f"The columns {_listed(sparse)} of {name} are sparse. Give dense ones: table.sparse.to_dense()."
        )
    try:
        return arrow.Table.from_pandas(table, preserve_index=False)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError) as error:
        _refuse_objects(table, arrow, name, error)
        raise


def word_columns(table: pa.Table) -> tuple[str, ...]:
    """The columns that hold words, as they are or as categories."""
    types = pyarrow("A table").types
    found = []
    for column in table.schema:
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if str(kind) in ("string", "large_string", "string_view"):
            found.append(column.name)
    return tuple(found)


def read_file(
    path: Path, options: Mapping[str, Any], words: Collection[str] = ()
) -> tuple[pa.Table, list[str]]:
    """The table in a file, and remarks on how it was read.

    Args:
        options: Of a `.csv`: `sep`, `decimal`, `encoding`, `na_values`, as in `pandas.read_csv`.
        words: Columns of a `.csv` that hold words, even if all of them read as numbers: `01` stays `01`.

    Raises:
        ConfigError: For an option that the file's kind does not have.
        DataError: If the file cannot be read.
    """
    arrow, suffix = pyarrow(path.name), table_suffix(path)
    text = is_text(path)
    for key in options:
        if key not in _OPTIONS:
            has = f"It accepts: {', '.join(_OPTIONS)}, subset." if text else "It accepts: subset."
            setting = (
                f" Set {key}=..., without `dataset.`."
                if key in ("target", "inputs", "drop", "categories", "missing")
                else did_you_mean(_CALLED.get(key, key), _OPTIONS if text else ())
            )
            raise ConfigError(f"{path.name} has no argument `{key}`.{setting} {has}")
        if not text:
            raise ConfigError(f"`{key}` is an argument of .csv files, but {path.name} is not one.")
    try:
        if text:
            table = _read_csv(path, suffix == ".tsv", options, words)
        elif suffix in (".jsonl", ".ndjson"):
            from pyarrow import json

            # A row must fit into a block.
            table = json.read_json(path, json.ReadOptions(block_size=_BLOCK))
        elif suffix == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(path)
        else:
            table = _read_arrow(path)
        names = table.column_names  # Decoded here only.
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if text and "Expected 1 columns" in str(error):
            _check_separator(path, _first_line(path), options)
        raise DataError(f"{path} cannot be read: {_reason(error, text)}") from error
    if not table.num_rows:
        raise DataError(f"{path} has no rows.")
    _check_names(names, path.name)
    if text and len(names) == 1:
        _check_separator(path, names[0], options)
    left_out = [name for name in names if _numbers_rows(table, name)]
    notes = [f"row numbers (column `{name}`) are left out" for name in left_out]
    return table.drop_columns(left_out), notes


def _read_csv(
    path: Path, tabs: bool, options: Mapping[str, Any], words: Collection[str]
) -> pa.Table:
    from pyarrow import csv

    na = options.get("na_values", ())
    return csv.read_csv(
        path,
        csv.ReadOptions(encoding=str(options.get("encoding", "utf8")), block_size=_BLOCK),
        csv.ParseOptions(
            delimiter=str(options.get("sep", "\t" if tabs else ",")), newlines_in_values=True
        ),
        csv.ConvertOptions(
            decimal_point=str(options.get("decimal", ".")),
            null_values=[*_NA, *(map(str, na) if isinstance(na, (list, tuple)) else [str(na)])],
            strings_can_be_null=True,
            column_types=dict.fromkeys(words, "string"),
        ),
    )


def _read_arrow(path: Path) -> pa.Table:
    """An Arrow file, or, as Hugging Face writes them, a stream."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def _first_line(path: Path) -> str:
    import gzip

    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", errors="replace") as file:
        return file.readline().strip()


def _reason(error: Exception, text: bool) -> str:
    """What is wrong, and for a text file, what to try."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if not text:
        return said
    if "UTF8" in said or "utf-8" in said or "codec" in said:
        return f"{said}. Name its encoding: dataset.encoding=latin-1, say."
    if "Expected" in said and "columns" in said:
        return (
            f"{said}. Its rows differ in length: are its fields separated by something else "
            "(dataset.sep=';'), or does it begin with lines that are not data?"
        )
    return said


def _check_separator(path: Path, header: str, options: Mapping[str, Any]) -> None:
    found = next((mark for mark in (";", "\t", "|", ",") if mark in header), None)
    if found is not None and found != options.get("sep"):
        shown = r"\t" if found == "\t" else found
        comma = " (and dataset.decimal=',' where numbers are written 1,5)" if found == ";" else ""
        raise DataError(
            f"{path} has a single column, `{header[:60]}`: its fields seem to be separated by '{shown}'. "
            f"Set dataset.sep='{shown}'{comma}."
        )


def _numbers_rows(table: pa.Table, name: str) -> bool:
    """Whether a column holds the row numbers that pandas saves beside the columns."""
    import pyarrow.compute as pc

    column = table[name]
    if name not in _ROW_NUMBERS or str(column.type) != "int64" or column.null_count:
        return False
    return bool(pc.count_distinct(column).as_py() == len(column))


def _check_names(names: list[str], name: str) -> None:
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(
            f"{name} has several columns called {_listed(twice)}. Give each a name of its own."
        )


def _refuse_objects(table: Any, arrow: Any, name: str, error: Exception) -> None:
    """Raise for the columns whose objects have no one type."""
    wrong = []
    for column in table.columns:
        try:
            arrow.Array.from_pandas(table[column])
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError):
            kinds = sorted({type(value).__name__ for value in table[column].head(10_000)})
            wrong.append(f"`{column}` ({', '.join(kinds[:4])})")
    if wrong:
        raise DataError(
            f"Columns of {name} hold values of several types: {', '.join(wrong)}. Convert each to "
            "numbers (pandas.to_numeric) or to words (.astype(str)), or leave it out: drop=[...]."
        ) from error


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
