"""The experiments: their parts, a stopped run, all of them in small."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from experiments import comparison, results
from experiments import r1_bn_is_faster as r1
from experiments import r2_steadier_inputs as r2
from experiments import r3_high_rates as r3
from experiments import r4_lenet as r4
from experiments import r5_max_norm_and_dropout as r5
from experiments import r6_retention as r6
from experiments import r7_size_of_the_data as r7
from experiments import r8_monte_carlo as r8
from experiments import r9_gaussian as r9
from experiments import r10_sparse_features as r10
from experiments import r11_identities as r11
from experiments import r12_order as r12
from experiments.__main__ import PAGE, RESULTS
from experiments.data import Split, Splits, load_splits
from experiments.lab import Lab
from experiments.nets import mlp
from experiments.registry import EXPERIMENTS
from experiments.report import page, read_results
from experiments.trainer import (
    Plan,
    Trainer,
    accuracy,
    batch_order,
    learning_rates,
    loss,
)
from training.errors import UserError

ROOT = Path(__file__).parents[2]
FAST = ("r1", "r2", "r8", "r11", "r12")  # r8 brings r5 with it
RNG = np.random.default_rng(0)


@pytest.fixture
def data(fashion_mnist, monkeypatch):
    """2,000 images of Fashion-MNIST, for MNIST too: its archives are not in here."""
    images, labels = fashion_mnist("train")
    parts = (slice(1000), slice(1000, 1500), slice(1500, 2000))
    splits = Splits(*(Split(images[p], labels[p].astype("int32")) for p in parts))
    monkeypatch.setattr(Lab, "data", lambda lab, dataset: splits)
    return splits


def sgd(rate=0.1, momentum=0.0):
    import keras

    return keras.optimizers.SGD(rate, momentum=momentum)


# The trainer.


def test_training_is_gradient_descent_with_momentum_and_decay(data):
    def regression(seed):
        return mlp(seed, widths=())

    trainer = Trainer(regression, sgd(momentum=0.9))
    plan = Plan(6, 20, 0.5, seed=3, decay=True, every=3)
    weights = regression(3).get_weights()
    assert list(trainer.train(data.train, plan)) == [3, 6]

    kernel, bias = (w.astype("float64") for w in weights)
    velocity = [0.0, 0.0]
    x = data.train.images.reshape(len(data.train), 784) / 255.0
    for step, batch in enumerate(batch_order(len(data.train), plan)):
        wrong = softmax(x[batch] @ kernel + bias, axis=1)
        wrong[np.arange(20), data.train.labels[batch]] -= 1
        gradients = (x[batch].T @ wrong / 20, wrong.mean(axis=0))
        rate = 0.5 * (1 - step / 6)
        velocity = [
            0.9 * v - rate * g for v, g in zip(velocity, gradients, strict=True)
        ]
        kernel, bias = kernel + velocity[0], bias + velocity[1]
    np.testing.assert_allclose(trainer.model.get_weights()[0], kernel, atol=2e-5)
    np.testing.assert_allclose(trainer.model.get_weights()[1], bias, atol=2e-5)
    expected = data.test.images.reshape(-1, 784) / 255.0 @ kernel + bias
    outputs = trainer.outputs(data.test.images)
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


def test_a_seed_gives_the_same_network_whatever_was_trained_before(data):
    def network(seed):
        return mlp(seed, widths=(16,), rate=0.5, norm=True)

    trainer = Trainer(network, sgd(momentum=0.9))
    plan = Plan(20, 10, 0.1, seed=1, every=10)
    trainer.train_to_end(data.train, plan)
    first = [v.numpy() for v in trainer.model.variables]
    trainer.train_to_end(data.train, dataclasses.replace(plan, seed=2, rate=0.3))
    assert any((a != b).any() for a, b in zip(first, trainer.model.get_weights()))  # noqa: B905
    trainer.train_to_end(data.train, plan)
    for a, b in zip(first, trainer.model.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_arms_start_from_the_same_weights():
    def kernels(**options):
        model = mlp(4, widths=(8, 9), **options)
        return [w.numpy() for w in model.weights if w.name == "kernel"]

    plain = kernels()
    for options in ({"norm": True}, {"rate": 0.5, "input_rate": 0.2}, {"l2": 0.1}):
        for a, b in zip(plain, kernels(**options), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(plain[0], mlp(5, widths=(8, 9)).get_weights()[0])


def test_the_norms_stay_below_their_bound(data):
    def network(seed):
        return mlp(seed, widths=(16,), max_norm=0.7)

    trainer = Trainer(network, sgd(1.0))
    trainer.train_to_end(data.train, Plan(20, 10, 1.0, seed=1, every=20))
    norms = np.linalg.norm(trainer.model.layers[2].kernel.numpy(), axis=0)
    assert norms.max() == pytest.approx(0.7, abs=1e-4)


def test_every_epoch_has_every_example_once():
    order = batch_order(10, Plan(6, 5, 0.1, seed=0))
    assert order.shape == (6, 5)
    epochs = order.reshape(3, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert batch_order(3, Plan(4, 5, 0.1, seed=0)).shape == (4, 3)


def test_learning_rates_fall_to_zero_or_stay():
    assert learning_rates(Plan(4, 1, 2.0, seed=0)).tolist() == [2, 2, 2, 2]
    falling = learning_rates(Plan(4, 1, 2.0, seed=0, decay=True))
    assert falling.tolist() == [2, 1.5, 1, 0.5]


def test_steps_that_do_not_fit_are_refused(data):
    trainer = Trainer(lambda seed: mlp(seed, widths=()), sgd())
    with pytest.raises(ValueError, match="steps=10, every=4"):
        trainer.train_to_end(data.train, Plan(10, 5, 0.1, seed=0, every=4))


def test_outputs_that_are_not_numbers_are_wrong_answers():
    logits = np.array([[0, 1], [np.nan, 0], [np.inf, 0], [2, 1]])
    assert accuracy(logits, np.array([1, 0, 0, 0])) == 0.5


def test_the_loss_is_the_mean_cross_entropy():
    logits, labels = RNG.normal(0, 50, (20, 10)), RNG.integers(0, 10, 20)
    expected = -log_softmax(logits, axis=1)[np.arange(20), labels].mean()
    assert loss(logits, labels) == pytest.approx(expected)


# What is measured.


def test_drift_is_in_widths_of_the_distribution():
    medians = np.array([0.0, 2.0, 4.0])  # of standard deviation sqrt(8 / 3)
    percentiles = np.stack([medians + offset for offset in (-2, -1, 0, 1, 2)], axis=1)
    units = np.stack([percentiles, 5 + 10 * percentiles], axis=2)
    assert r1.drift(units) == pytest.approx(np.sqrt(8 / 3) / 2)


def test_steps_to_the_target():
    config = r1.Config(every=100)
    assert r1.steps_to_target([0.9, 0.95, 0.94], config) == 200
    assert r1.steps_to_target([0.9, 0.9, 0.9], config) == 300


def test_the_error_of_means_is_averaged_over_the_groups():
    data = Split(np.zeros((1, 28, 28, 1), "uint8"), np.array([0]))
    right, wrong = [[0.6, 0.4]], [[0.1, 0.9]]
    draws = np.array([right, right, wrong, right])
    assert r8.group_error(draws, data, 1) == 25
    assert r8.group_error(draws, data, 2) == 50
    assert r8.group_error(draws, data, 3) == 100


# The criteria: what just meets them, and what just does not.


def of(**columns):
    """Measurements, one for each seed, from columns."""
    keys = columns.keys()
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(keys, row, strict=True)) for row in rows]


def holds_r1(steps=(400,) * 5, errors=(2.0,) * 5):
    measured = {
        "without": of(steps_to_target=(1000,) * 5, test_error=(2.0,) * 5),
        "with": of(steps_to_target=steps, test_error=errors),
        "stddev": 0.1,
        "rates": {"without": 1.0, "with": 1.0},
        "explored": [],
    }
    return r1.analyse(measured, r1.FULL).holds


def test_criterion_of_r1():
    assert holds_r1()
    assert holds_r1(steps=(100, 100, 500, 900, 900))
    assert not holds_r1(steps=(100, 100, 510, 900, 900))
    assert not holds_r1(steps=(100, 100, 100, 100, 1000))
    assert holds_r1(errors=(2.0, 2.0, 2.0, 2.2, 2.2))
    assert not holds_r1(errors=(2.0, 2.0, 2.2, 2.2, 2.2))


def test_criterion_of_r2():
    def holds(*drifts):
        measured = {"without": of(drift=(0.2,) * 5), "with": of(drift=drifts)}
        return r2.analyse(measured, r1.FULL).holds

    assert holds(0.1, 0.1, 0.1, 0.1, 0.19)
    assert not holds(0.1, 0.1, 0.1, 0.1, 0.2)


def holds_r3(with_norm, without=(90, 50, 10)):
    def measured(accuracies):
        return [of(accuracy=(a,) * 5, finite=(a is not None,) * 5) for a in accuracies]

    both = {"with": measured(with_norm), "without": measured(without), "base_rate": 1}
    both["explored"] = {arm: measured((50, 50)) for arm in r1.ARMS}
    return r3.analyse(both, r3.Config()).holds


def test_criterion_of_r3():
    assert holds_r3((97, 96, 20))
    assert not holds_r3((97, 95.9, 20))
    assert not holds_r3((97, 97, 10))
    assert not holds_r3((97, 97, None))


def test_criterion_of_r4():
    def holds(*gains):
        measured = {
            "without": of(test_accuracy=(80,) * 5),
            "with": of(test_accuracy=tuple(80 + gain for gain in gains)),
        }
        return r4.analyse(measured, r4.Config()).holds

    assert holds(3, 3, 3, 3, 3.1)
    assert not holds(2.9, 2.9, 2.9, 2.9, 3)  # below 3 points
    assert not holds(15, 15, 0, 0, 0)  # interval around 0


def holds_r5(l2, best):
    arms = {arm: of(test_error=l2) for arm in r5.PAPER}
    arms[r5.BEST] = of(test_error=best)
    chosen = {arm: {"rate": 0.1} for arm in r5.PAPER}
    measured = {"arms": arms, "chosen": chosen, "explored": arms}
    return r5.analyse(measured, r5.FULL).holds


def test_criterion_of_r5():
    l2 = (2.0, 2.1, 2.0, 2.1, 2.0)
    assert holds_r5(l2, (1.7, 1.7, 1.8, 1.7, 1.7))
    assert not holds_r5(l2, (1.9, 1.9, 1.9, 1.9, 1.9))  # less than 10 %
    assert not holds_r5(l2, (0.5, 2.2, 0.5, 2.2, 2.2))  # interval around 0


def test_criterion_of_r6():
    def holds(middle, whole):
        errors = {0.1: (9.0,) * 5, 0.5: middle, 1.0: whole}
        results = [
            {"retained": p, "rate": 0.1, "seeds": of(test_error=error)}
            for p, error in errors.items()
        ]
        return r6.analyse({"results": results}, r6.Config()).holds

    assert holds((4.0,) * 5, (4.1,) * 5)
    assert not holds((4.0,) * 5, (4.1, 4.1, 4.1, 4.1, 4.0))
    assert not holds((4.0, 4.0, 4.0, 4.0, 9.0), (9.5,) * 5)


def test_criterion_of_r7():
    def found(middle, large):
        def size(n, gains):
            without = of(test_error=(5.0,) * 5)
            return {
                "size": n,
                "without": without,
                "with": of(test_error=tuple(5 - g for g in gains)),
            }

        sizes = [size(5_000, middle), size(10_000, large)]
        return r7.analyse({"results": sizes}, r7.Config())

    def holds(middle, large):
        return found(middle, large).holds

    clear, nothing = (0.5, 0.6, 0.5, 0.6, 0.5), (0.1, -0.1, 0.1, -0.1, 0.0)
    assert holds(clear, nothing)
    assert holds(nothing, clear)
    assert not holds(nothing, nothing)
    harm = tuple(-g for g in clear)
    assert not holds(nothing, harm)
    assert found(harm, harm).p > 0.5


def test_criterion_of_r8():
    def holds(one, fifty):
        errors = [[o, 0, 0, 0, 0, f, 0] for o, f in zip(one, fifty, strict=True)]
        measured = {"networks": of(errors=errors, scaled=(2.0,) * 5)}
        return r8.analyse(measured, r8.Config()).holds

    worse, close = (2.5,) * 5, (2.1, 2.0, 1.9, 2.0, 2.0)
    assert holds(worse, close)
    assert not holds((2.5, 2.5, 2.5, 2.5, 2.0), close)
    assert not holds(worse, (2.2,) * 5)
    assert not holds(worse, (2.3, 1.7, 2.3, 1.7, 2.0))  # too uncertain


def test_criterion_of_r9():
    def holds(gaussian):
        measured = {
            "Bernoulli": of(test_error=(2.0,) * 5),
            "Gaussian": of(test_error=gaussian),
        }
        return r9.analyse(measured, r5.FULL).holds

    assert holds((2.1, 2.0, 2.1, 2.0, 2.1))
    assert holds((1.5,) * 5)
    assert not holds((2.2,) * 5)
    assert not holds((2.4, 1.8, 2.4, 1.8, 2.1))  # too uncertain


def test_criterion_of_r10():
    def holds(*activations):
        rest = {"near_zero": (0.5,) * 5, "test_loss": (60.0,) * 5}
        measured = {
            "without": of(mean_activation=(2.0,) * 5, **rest),
            "with": of(mean_activation=activations, **rest),
        }
        return r10.analyse(measured, r10.Config()).holds

    assert holds(*(1.2,) * 5)
    assert not holds(1.2, 1.2, 1.2, 1.2, 1.21)


def test_criterion_of_r11():
    def holds(errors=4.0, error=1e-6):
        mean = {"mean": 1, "expected": 1, "standard_errors": errors}
        measured = {name: mean for name in r11.EXPECTATIONS}
        measured |= {name: {"error": error} for name in r11.IDENTITIES}
        return r11.analyse(measured, r11.Config()).holds

    assert holds()
    assert not holds(errors=4.1)
    assert not holds(error=1.1e-6)


def test_criterion_of_r12():
    def holds(shift=(1.5,) * 5, accuracy=(89.0,) * 5, loss=(0.29,) * 5):
        moving = {"accuracy_moving": (88.9,) * 5, "loss_moving": (0.3,) * 5}
        real = {"accuracy_real": accuracy, "loss_real": loss}
        return r12.analyse(
            {
                "before": of(shift=shift, **moving, **real),
                "after": of(shift=(1.1,) * 5, **moving, **real),
                "explored": of(
                    temperature_moving=(1.0,) * 5,
                    temperature_real=(1.2,) * 5,
                    scaled_loss_moving=(0.3,) * 5,
                    scaled_loss_real=(0.3,) * 5,
                ),
            },
            r12.Config(),
        ).holds

    assert holds()
    assert not holds(shift=(1.5, 1.5, 1.5, 1.5, 1.1))
    assert not holds(accuracy=(88.8,) * 5)
    assert not holds(loss=(0.29, 0.29, 0.29, 0.29, 0.31))


def test_criterion_of_the_comparisons():
    def holds(ours, seconds):
        theirs = (90.0, 90.1, 90.0, 90.1, 90.0)
        nothing = (None,) * 5
        measured = {
            "mnist": {
                "kerasnorm": of(test_accuracy=ours, steps_to_target=nothing),
                "Keras": of(test_accuracy=theirs, steps_to_target=nothing),
                "seconds_per_step": {"kerasnorm": seconds, "Keras": 0.1},
            }
        }
        return comparison.analyse(measured, comparison.C1.full).holds

    noise = (90.1, 90.0, 90.0, 90.2, 89.9)
    assert holds(noise, 0.109)
    assert not holds(noise, 0.111)
    assert not holds((91.0, 91.1, 91.1, 91.1, 91.0), 0.05)  # better is not equal
    assert not holds((89.0, 89.1, 89.1, 89.1, 89.0), 0.05)


# The store.


def tiny(lab):
    config = r7.Config(
        sizes=(100,),
        headlines=(100,),
        widths=(8,),
        steps=20,
        tuning_steps=10,
        every=10,
        rates=(0.1, 0.3),
        seeds=(1, 2),
    )
    return r7.run(lab, config)


def test_a_stopped_run_goes_on_and_trains_nothing_twice(tmp_path, data):
    with Lab("r7", tmp_path / "whole", report=lambda line: None) as lab:
        whole, number = tiny(lab), len(lab.records)
    assert number == 8  # two arms: two rates and two seeds each

    trained = []

    def stop_after_three(line):
        trained.append(line)
        if len(trained) == 3:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Lab("r7", tmp_path, report=stop_after_three) as lab,
    ):
        tiny(lab)
    store = tmp_path / "r7" / "measurements.jsonl"
    with store.open("a") as file:
        file.write('{"key": {"arm": "with", "se')  # killed while writing
    with Lab("r7", tmp_path, report=trained.append) as lab:
        assert tiny(lab) == whole
    assert len(trained) == number
    keys = [
        json.dumps(json.loads(line)["key"]) for line in store.read_text().splitlines()
    ]
    assert len(keys) == len(set(keys)) == number


def test_a_changed_key_is_measured_anew(tmp_path):
    with Lab("any", tmp_path, report=lambda line: None) as lab:
        assert lab.once({"steps": 10, "widths": (1, 2)}, lambda: {"x": 1}) == {"x": 1}
        assert lab.once({"steps": 10, "widths": (1, 2)}, lambda: {"x": 2}) == {"x": 1}
        assert lab.once({"steps": 20, "widths": (1, 2)}, lambda: {"x": 3}) == {"x": 3}


def test_a_store_refuses_another_configuration(tmp_path):
    with Lab("any", tmp_path) as lab:
        lab.check({"batch_size": 100, "seeds": (1, 2)})
        lab.check({"batch_size": 100, "seeds": (1, 2, 3), "added": 1})
        with pytest.raises(UserError, match=r"measured with another batch_size\. Move"):
            lab.check({"batch_size": 60, "seeds": (1, 2)})
        with pytest.raises(UserError, match="another added"):
            lab.check({"batch_size": 100, "added": 2})


def test_tuning_takes_the_highest_score(tmp_path):
    scores = {0.1: 0.5, 0.3: 0.9, 1.0: 0.7}
    with Lab("any", tmp_path, report=lambda line: None) as lab:
        chosen = lab.tune(
            {"arm": "with"},
            [{"rate": rate} for rate in scores],
            lambda choice: {"score": scores[choice["rate"]]},
        )
    assert chosen == {"rate": 0.3}


def test_two_processes_do_not_share_a_store(tmp_path):
    with (
        Lab("any", tmp_path),
        pytest.raises(UserError, match="Another process"),
        Lab("any", tmp_path),
    ):
        pass


# What is committed.


def test_the_page_is_made_of_the_stored_results():
    stored = read_results(RESULTS)
    assert PAGE.read_text(encoding="utf-8") == page(EXPERIMENTS, stored)
    for name, result in stored.items():
        assert result["criterion"] == EXPERIMENTS[name].criterion  # never changed
        assert result["claim"] == EXPERIMENTS[name].claim
        assert result["trainings"] > 0
        assert result["holds"] or result["remark"], name  # what was tried


# All of them, in small.


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in EXPERIMENTS],
)
def test_every_experiment_in_small(name, tmp_path, data):
    experiment = EXPERIMENTS[name]
    output = tmp_path / "results"
    line = results.carry_out(experiment, True, None, tmp_path / "stores", output)
    assert line.startswith(f"{name}: {experiment.claim} | Criterion: ")
    assert line.endswith((" | HOLDS", " | DOES NOT HOLD"))
    result = json.loads((output / f"{name}.json").read_text())
    assert result["mode"] == "quick"
    assert result["criterion"] == experiment.criterion
    assert result["numbers"]
    rows = (output / f"{name}.csv").read_text().splitlines()
    assert len(rows) == result["trainings"] + 1
    assert (output / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not read_results(output)  # a quick result is none


def test_the_exact_identities_hold(tmp_path):
    r11 = EXPERIMENTS["r11"]
    line = results.carry_out(r11, False, None, tmp_path / "stores", tmp_path)
    assert line.endswith("| HOLDS"), line


def test_weights_that_are_gone_are_trained_again(tmp_path, data):
    with Lab("r5", tmp_path, report=lambda line: None) as lab:
        expected = r5.trained(lab, r5.BEST, 1, r5.QUICK)
        number = len(lab.records)
        for path in (tmp_path / "r5" / "weights").iterdir():
            path.unlink()
        network = r5.kept(lab, r5.BEST, 1, r5.QUICK)
        wrong = network.outputs(data.test.images).argmax(axis=1) != data.test.labels
        assert 100 * wrong.mean() == pytest.approx(expected["test_error"])
        assert len(lab.records) == number
        assert list((tmp_path / "r5" / "weights").iterdir())


@pytest.mark.slow
def test_the_data_are_split_fifty_ten_ten():
    splits = load_splits("fashion_mnist", None)
    sizes = [len(s) for s in (splits.train, splits.validation, splits.test)]
    assert sizes == [50_000, 10_000, 10_000]
    subset = splits.train.subset(100, 1)
    assert (subset.images == splits.train.subset(100, 1).images).all()
    assert (subset.labels != splits.train.subset(100, 2).labels).any()
    assert set(np.unique(subset.binarized().images)) == {0, 255}


# The page and the command line.


def stored(name, **changes):
    experiment = EXPERIMENTS[name]
    return {
        **{k: getattr(experiment, k) for k in ("name", "title", "claim", "source")},
        "criterion": experiment.criterion,
        "mode": "full",
        "holds": True,
        "measured": "a ratio of 0.4",
        "numbers": [{"what": "steps", "ours": "12", "paper": "13"}],
        "p": 0.03,
        "remark": "",
        "command": f"python -m experiments run {name}",
        "config": {"seeds": [1, 2, 3]},
        "trainings": 7,
        "seconds": 100.0,
        "cpu_seconds": 60.0,
        "dates": ["2026-01-01", "2026-01-02"],
        "commits": ["abc"],
        "machine": ["a machine"],
        "versions": {"python": "3.12"},
        **changes,
    }


def test_the_page_says_what_holds_what_does_not_and_what_was_not_run(tmp_path):
    for result in (
        stored("r1"),
        stored("r5", holds=False, remark="A longer run was tried.", p=0.01),
        stored("r6", mode="quick"),
    ):
        path = tmp_path / f"{result['name']}.json"
        path.write_text(json.dumps(result))
    text = page(EXPERIMENTS, read_results(tmp_path))
    verdicts = {
        cells[1].split("]")[0].strip("[ "): cells[3].strip()
        for cells in (line.split("|") for line in text.splitlines())
        if len(cells) == 5
        and cells[3].strip() in ("holds", "not run", "**does not hold**")
    }
    assert verdicts.pop("r1") == "holds"
    assert verdicts.pop("r5") == "**does not hold**"
    assert set(verdicts.values()) == {"not run"}
    assert len(verdicts) == len(EXPERIMENTS) - 2
    assert "A longer run was tried." in text
    assert "run r5`: 3 seeds, 7 measurements" in text
    assert "| r5 | 0.01 | 0.02 |" in text
    assert "(results/r1.png)" in text
    assert "## R6" not in text


def test_the_commands(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "experiments", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    listed = run("list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [*EXPERIMENTS]
    refused = run("run", "r99")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        f"python -m experiments: NAME must be one of {', '.join(EXPERIMENTS)} or all. "
        "Received: r99."
    )
