"""Planning: profile -> shortlist -> probe -> candidates -> halving -> decide."""

from automl_tl.planning.evidence import EvidenceCollector, make_profile
from automl_tl.planning.limits import shortlist
from automl_tl.planning.planner import make_plan, read_plan

__all__ = ["EvidenceCollector", "make_plan", "make_profile", "read_plan", "shortlist"]
