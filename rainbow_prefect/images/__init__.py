"""Container images from user code: what goes into each (`recipes`), what is to be done (`decide`), and doing it (`build`)."""

from __future__ import annotations

from .build import Built, build, failure
from .decide import Decision, decide
from .recipes import Recipe, image_of, needed, recipes

__all__ = ["Built", "Decision", "Recipe", "build", "decide", "failure", "image_of", "needed", "recipes"]
