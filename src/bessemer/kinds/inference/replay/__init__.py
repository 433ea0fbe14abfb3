"""A trace of requests replayed over a model of replicas, with the policy that scales in earnest and with others beside
it (`bessemer simulate inference`). Pure: lines, figures and a policy in, what became of the requests out.
"""

from bessemer.kinds.inference.replay.figures import Replayed, figures
from bessemer.kinds.inference.replay.peers import PEERS
from bessemer.kinds.inference.replay.replica import PRESETS, Speed
from bessemer.kinds.inference.replay.run import Case, replay
from bessemer.kinds.inference.replay.trace import Asked, read, thickened

__all__ = ["PEERS", "PRESETS", "Asked", "Case", "Replayed", "Speed", "figures", "read", "replay", "thickened"]
