"""rainbow-prefect: from one `rainbow.yml` to Prefect runs."""
