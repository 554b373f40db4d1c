"""An arm: its rate is tuned, then it is trained with every seed."""

from experiments.arm import Arm, Sizes
from experiments.experiment import TUNING_SEED
from experiments.lab import Lab
from experiments.trainer import Plan

SIZES = Sizes(40, 10, tuning_steps=20, every=20, rates=(0.1, 0.3, 1.0), seeds=(1, 2))


def test_an_arm_is_tuned_with_a_seed_of_its_own_and_trained_with_every_seed(tmp_path):
    trained = []

    def train(plan):
        trained.append(plan)
        return plan

    def score(plan):
        return {"score": -abs(plan.rate - 0.3)}

    def measure(plan):
        return {"seed": plan.seed}

    with Lab("any", tmp_path, report=lambda line: None) as lab:
        arm = Arm(lab, SIZES, {"arm": "with"}, train, score)
        assert arm.with_seeds(measure) == [{"seed": 1}, {"seed": 2}]
        assert arm.with_seeds(measure, 60, (3,), explored=True) == [{"seed": 3}]
        assert arm.rate() == 0.3
    tuned = [Plan(20, 10, r, TUNING_SEED, decay=True, every=20) for r in SIZES.rates]
    measured = [Plan(40, 10, 0.3, seed, decay=True, every=20) for seed in (1, 2)]
    explored = [Plan(60, 10, 0.3, 3, decay=True, every=20)]
    assert trained == tuned + measured + explored
    key = {"arm": "with", "steps": 40, "rate": 0.3, "seed": 1}
    assert [r["key"] for r in lab.records if r["key"].get("seed") == 1] == [key]
