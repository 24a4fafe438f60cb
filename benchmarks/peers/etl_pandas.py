"""pandas from SQLite to PostgreSQL, some rows at a time, as its documentation shows it."""

import sys

import pandas
from sqlalchemy import create_engine

source, sink, count = sys.argv[1:]
to = create_engine(sink.replace("postgresql://", "postgresql+psycopg://"))
with create_engine(source).connect() as connection, to.begin() as target:
    query = f"select * from lineitem where l_orderkey <= {int(count)}"
    for number, frame in enumerate(pandas.read_sql(query, connection, chunksize=10_000)):
        frame.to_sql("by_pandas", target, schema="mart", index=False, if_exists="append" if number else "replace")
