"""dlt from PostgreSQL to PostgreSQL in its best configuration: connectorx reads Arrow, files of CSV are loaded by COPY."""

import sys

import dlt
from dlt.sources.sql_database import sql_table

url, folder, count = sys.argv[1:]


def some(query, table):
    return query.where(table.c.l_orderkey <= int(count))


pipeline = dlt.pipeline(
    "bench",
    pipelines_dir=folder,
    destination=dlt.destinations.postgres(url),
    dataset_name="by_dlt",
)
rows = sql_table(url, table="lineitem", backend="connectorx", query_adapter_callback=some)
info = pipeline.run(rows, table_name="lineitem", write_disposition="replace", loader_file_format="parquet")
info.raise_on_failed_jobs()
