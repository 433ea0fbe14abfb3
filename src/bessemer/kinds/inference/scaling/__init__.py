"""How many replicas an Endpoint is to have: what is known of it in, replicas and why out (`policy`). Pure.

`sight` are the two values, `learning` is what is learnt while it serves, `spec` what people say and are told.
"""

from bessemer.kinds.inference.scaling.policy import Means, Scaler
from bessemer.kinds.inference.scaling.sight import Policy, Sight, Verdict
from bessemer.kinds.inference.scaling.spec import Scale, ScaleTarget, Scaling, scale_problems

__all__ = [
    "Means",
    "Policy",
    "Scale",
    "ScaleTarget",
    "Scaler",
    "Scaling",
    "Sight",
    "Verdict",
    "scale_problems",
]
