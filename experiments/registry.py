"""All experiments by name."""

from experiments.comparison import C1, C2, C3
from experiments.experiment import Experiment
from experiments.n1_small_batches import N1
from experiments.n2_averages import N2
from experiments.n3_uncertainty import N3
from experiments.n4_noise import N4
from experiments.n5_scale import N5
from experiments.n6_both import N6
from experiments.r1_bn_is_faster import R1
from experiments.r1_paper import R1_PAPER
from experiments.r2_paper import R2_PAPER
from experiments.r2_steadier_inputs import R2
from experiments.r3_high_rates import R3
from experiments.r3_paper import R3_PAPER
from experiments.r4_lenet import R4
from experiments.r5_max_norm_and_dropout import R5
from experiments.r5_paper import R5_PAPER
from experiments.r6_paper import R6_PAPER
from experiments.r6_retention import R6
from experiments.r7_paper import R7_PAPER
from experiments.r7_size_of_the_data import R7
from experiments.r8_monte_carlo import R8
from experiments.r9_gaussian import R9
from experiments.r10_paper import R10_PAPER
from experiments.r10_sparse_features import R10
from experiments.r11_identities import R11
from experiments.r12_order import R12
from experiments.r12_paper import R12_PAPER

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        *(R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, R11, R12),
        *(
            R1_PAPER,
            R2_PAPER,
            R3_PAPER,
            R5_PAPER,
            R6_PAPER,
            R7_PAPER,
            R10_PAPER,
            R12_PAPER,
        ),
        *(C1, C2, C3),
        *(N1, N2, N3, N4, N5, N6),
    )
}
