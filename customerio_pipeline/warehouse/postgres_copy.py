"""Arrow rows into a table of PostgreSQL, by COPY."""

from io import BytesIO

import pyarrow as pa
from psycopg import Cursor, sql
from pyarrow import csv

_ROWS_A_CHUNK = 256
"""The server reads a chunk while the next is made: larger ones took up to half as long again."""

# Nulls are empty and not in quotes, texts always in quotes: PostgreSQL's own convention.
_CSV = csv.WriteOptions(include_header=False, quoting_style="needed")


def copy_rows(cursor: Cursor[tuple[object, ...]], table: sql.Identifier, rows: pa.Table) -> None:
    """Append rows to a table whose columns have their names.

    Raises:
        psycopg.Error: the server refuses.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, names)
    with cursor.copy(statement) as copy:
        for chunk in rows.to_batches(_ROWS_A_CHUNK):
            text = BytesIO()
            csv.write_csv(chunk, text, _CSV)
            copy.write(text.getvalue())
