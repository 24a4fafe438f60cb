"""Copy this file into a project: `flows/rainbow.py:<pipeline>` is then the Prefect entrypoint of each pipeline."""

from rainbow_prefect.flows import flows_near

__getattr__ = flows_near(__file__)
