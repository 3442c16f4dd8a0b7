"""Planning: what the data is like, what could be done, what will be done and why."""

from automl_tl.planning.decision import make_plan
from automl_tl.planning.files import read_plan
from automl_tl.planning.profile import make_profile

__all__ = ["make_plan", "make_profile", "read_plan"]
