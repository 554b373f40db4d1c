"""All experiments by name."""

from experiments.experiment import Experiment
from experiments.r1_bn_is_faster import R1
from experiments.r2_steadier_inputs import R2
from experiments.r3_high_rates import R3

EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (R1, R2, R3)}
