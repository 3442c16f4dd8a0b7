"""Planning: what the data is like, what could be done, what will be done and why."""

from automl_tl.planning.files import read_plan
from automl_tl.planning.limits import backbones_to_look_at
from automl_tl.planning.planner import make_plan
from automl_tl.planning.probes import Lab
from automl_tl.planning.profile import make_profile

__all__ = ["Lab", "backbones_to_look_at", "make_plan", "make_profile", "read_plan"]
