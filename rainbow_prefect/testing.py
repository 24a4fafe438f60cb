"""Fixtures for tests of pipelines; a pytest plugin."""
