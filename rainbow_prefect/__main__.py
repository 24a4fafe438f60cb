"""`python -m rainbow_prefect` is `rainbow`."""

from .cli import main

if __name__ == "__main__":
    main()
