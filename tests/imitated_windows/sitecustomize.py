"""Python imports this at its start where this folder is on ``PYTHONPATH``."""

from tests.windows import imitate

imitate()
