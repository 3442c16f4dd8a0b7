"""Planning: profile -> shortlist -> probe -> candidates -> halving -> decide -> explain."""

from automl_tl.planning.limits import shortlist
from automl_tl.planning.planner import make_plan, read_plan
from automl_tl.planning.probe import EvidenceCollector
from automl_tl.planning.profile import make_profile

__all__ = ["EvidenceCollector", "make_plan", "make_profile", "read_plan", "shortlist"]
