"""SQL ETL: the rows of a query from a source to a sink; see `base` for the words, `move` for the way."""
