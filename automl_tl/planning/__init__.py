"""Planning: what the data is like, what could be done, what will be done and why."""

from automl_tl.planning.files import read_plan
from automl_tl.planning.planner import make_plan
from automl_tl.planning.probes import Lab
from automl_tl.planning.profile import make_profile

__all__ = ["Lab", "make_plan", "make_profile", "read_plan"]
