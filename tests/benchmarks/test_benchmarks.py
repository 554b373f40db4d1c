"""The benchmarks' own workings, and the way that our layers take. Nothing is timed."""

import functools
import importlib.util
import itertools
import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import __main__ as command_line
from benchmarks import inference, layers, memory, networks, pages, quiet, steps
from benchmarks.report import report
from benchmarks.steps import Case
from benchmarks.tables import TABLES, fastest_torch, milliseconds, render
from benchmarks.timing import MOST_ROUNDS, WARM_UP, Timing, interleave
from kerasnorm import KBatchNorm, KDropout
from kerasnorm.backend import tensorflow as kernels

IMAGES = (4, 6, 6, 8)
LARGE = (64, 32, 32, 64)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed."
)

BUILTIN = {
    KBatchNorm: keras.layers.BatchNormalization,
    KDropout: keras.layers.Dropout,
}


def arrays(results):
    """TensorFlow's or PyTorch's tensors as NumPy's, float32."""
    return [
        np.asarray(
            tf.cast(r, tf.float32) if tf.is_tensor(r) else r.detach().float().numpy()
        )
        for r in results
    ]


class FakeClock:
    """Time that passes only while a candidate runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def candidate(self, calls, name, seconds):
        durations = itertools.cycle(seconds)

        def step():
            calls.append(name)
            self.now += next(durations)

        return step


def test_every_round_calls_every_candidate_once_and_their_order_changes():
    clock, calls = FakeClock(), []
    candidates = {name: clock.candidate(calls, name, [1]) for name in "abc"}
    timing = interleave(candidates, budget=60, clock=clock)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    timed = rounds[WARM_UP + 1 :]
    assert len(timed) == 20
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(timed)) > 1
    assert {len(seconds) for seconds in timing.seconds.values()} == {20}


def test_each_candidate_is_given_its_own_time():
    clock = FakeClock()
    candidates = {
        "fast": clock.candidate([], "fast", [2]),
        "slow": clock.candidate([], "slow", [6]),
    }
    timing = interleave(candidates, budget=0, clock=clock)
    assert set(timing.seconds["fast"]) == {2}
    assert timing.ratio("slow", "fast") == 3


def test_the_number_of_rounds_is_bounded():
    clock = FakeClock()
    step = clock.candidate([], "a", [1])
    assert len(interleave({"a": step}, 1e9, clock).seconds["a"]) == MOST_ROUNDS


def test_the_two_ratios():
    timing = Timing({"ours": [1, 2, 10], "keras": [3, 4, 50]})
    assert timing.ratio("keras", "ours") == 4 / 2
    assert timing.paired_ratio("keras", "ours") == 3
    assert timing.summary("ours")["keras"] == {
        "median": 4,
        "lower_quartile": 3.5,
        "upper_quartile": 27,
        "ratio": 2,
        "paired_ratio": 3,
        "rounds": 3,
    }


def disturbed(monkeypatch, others):
    """Other processes that use so many cores, timing by timing; time does not pass."""
    clock, others = FakeClock(), iter(others)
    monkeypatch.setattr(quiet.time, "monotonic", clock)
    monkeypatch.setattr(quiet, "wait_for_quiet", lambda deadline: None)

    def during(run):
        clock.now += 1
        return run(), next(others)

    monkeypatch.setattr(quiet, "during", during)


def test_a_disturbed_timing_is_made_again(monkeypatch):
    disturbed(monkeypatch, [1.5, 0.02, 0.0])
    measured = quiet.measure({"kerasnorm": int}, budget=0, patience=60)
    assert measured["others"] == 0.02
    assert measured["times"]["kerasnorm"]["ratio"] == 1


def test_where_it_stays_loud_the_least_disturbed_timing_counts(monkeypatch):
    disturbed(monkeypatch, [1.5, 0.7, 0.9, 0.0])
    assert quiet.measure({"kerasnorm": int}, 0, patience=3)["others"] == 0.7


def test_own_work_is_not_others(monkeypatch):
    """3 s of two cores' time were used in 2 s, 1 s of it by this process."""
    for module, name, values in (
        (quiet.time, "monotonic", [10, 12]),
        (quiet.time, "process_time", [5, 6]),
        (quiet, "busy_seconds", [100, 103]),
    ):
        monkeypatch.setattr(module, name, iter(values).__next__)
    assert quiet.during(lambda: "done") == ("done", 1.0)


def test_the_seconds_in_use_grow():
    before = quiet.busy_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert quiet.busy_seconds() > before


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("known_batch", [True, False])
def test_batch_normalization_steps_compute_the_same(xla, known_batch):
    case = Case("batch_norm", IMAGES, xla=xla, known_batch=known_batch)
    ours = arrays(steps.tensorflow_step(case, "kerasnorm")())
    keras_own = arrays(steps.tensorflow_step(case, "keras")())
    assert [a.shape for a in ours] == [IMAGES, IMAGES, (8,), (8,)]
    for one, other in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", ["kerasnorm", "keras"])
def test_a_training_step_updates_the_moving_statistics(library):
    case = Case("batch_norm", IMAGES)
    layer = steps.make_layer(case, library)
    x, dy = steps.arrays(case)
    steps.compiled_step(case, layer)(x, dy)
    np.testing.assert_allclose(layer.moving_mean, 0.01 * x.mean((0, 1, 2)), rtol=1e-4)


@needs_torch
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_pytorch_computes_the_same_batch_normalization(channels_last, training):
    case = Case("batch_norm", IMAGES, training=training)
    ours = arrays(steps.tensorflow_step(case, "kerasnorm")())
    theirs = arrays(steps.torch_step(case, channels_last)())
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        other = np.moveaxis(other, 1, -1) if other.ndim == 4 else other
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@needs_torch
def test_pytorch_has_the_two_layouts():
    case = Case("dropout", IMAGES)
    for channels_last, strides in ((False, (288, 36, 6, 1)), (True, (288, 1, 48, 8))):
        y, dx = steps.torch_step(case, channels_last)()
        assert y.shape == dx.shape == (4, 8, 6, 6)
        assert y.stride() == strides


@pytest.mark.parametrize("library", ["kerasnorm", "keras"])
def test_dropout_steps_drop_the_same_in_both_directions(library):
    case = Case("dropout", IMAGES)
    x, dy = steps.arrays(case)
    y, dx = arrays(steps.tensorflow_step(case, library)())
    kept = y != 0
    assert 0.6 < kept.mean() < 0.8
    np.testing.assert_allclose(y, np.where(kept, x / 0.7, 0), rtol=1e-4)
    np.testing.assert_allclose(dx, np.where(kept, dy / 0.7, 0), rtol=1e-4)


def test_the_copy_moves_the_bytes_of_the_input():
    assert steps.copy_step(Case("dropout", IMAGES))().shape == (4 * 6 * 6 * 8,)
    half = Case("dropout", IMAGES, dtype="float16")
    assert steps.copy_step(half)().shape == (2 * 6 * 6 * 8,)


def test_half_precision_keeps_float32_weights():
    case = Case("batch_norm", IMAGES, dtype="bfloat16")
    for library in ("kerasnorm", "keras"):
        y, _, dgamma, _ = steps.tensorflow_step(case, library)()
        assert (y.dtype, dgamma.dtype) == (tf.bfloat16, tf.float32)


def test_the_cases_are_those_of_the_page():
    cases = list(layers.cases(quick=False))
    assert len(set(cases)) == len(cases)
    assert {case.dtype for case in cases} == {"float32", "bfloat16", "float16"}
    assert any(case.axis == 1 for case in cases)
    assert any(not case.known_batch for case in cases)
    assert set(layers.cases(quick=True)) < set(cases)


def operations(case):
    """Of our layer's step: the types of the operations by the function they are in."""
    step = steps.compiled_step(case, steps.make_layer(case, "kerasnorm"))
    graph = step.get_concrete_function().graph.as_graph_def(add_shapes=True)
    functions = graph.library.function
    found = {f.signature.name: {n.op for n in f.node_def} for f in functions}
    return {"": {node.op for node in graph.node}, **found}, graph


def compiled_calls(graph):
    """The operations that start a function compiled by XLA."""
    compiled = {
        f.signature.name for f in graph.library.function if f.attr["_XlaMustCompile"].b
    }
    return [
        node
        for node in graph.node
        if "f" in node.attr and node.attr["f"].func.name in compiled
    ]


@pytest.mark.parametrize("known_batch", [True, False])
def test_a_large_batch_normalization_runs_the_fused_kernels(known_batch):
    found, _ = operations(Case("batch_norm", LARGE, known_batch=known_batch))
    everything = set().union(*found.values())
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= everything


def test_xla_is_told_from_a_graph():
    """The fused kernel's form under XLA has a one-pass variance, and is slow."""
    found, _ = operations(Case("batch_norm", LARGE, xla=True))
    assert "DeviceIndex" in set().union(*found.values())
    assert "FusedBatchNormV3" not in found[""]


def test_a_small_batch_normalization_starts_no_fused_kernel():
    found, _ = operations(Case("batch_norm", (128, 256)))
    assert not {"FusedBatchNormV3", "FusedBatchNormGradV3"} & set().union(
        *found.values()
    )


def test_inference_is_one_operation_that_the_optimizer_folds():
    found, graph = operations(Case("batch_norm", LARGE, training=False))
    (kernel,) = (node for node in graph.node if node.op == "FusedBatchNormV3")
    assert not kernel.attr["is_training"].b
    assert not {"Mean", "Sub", "Rsqrt"} & found[""]


@pytest.mark.parametrize("known_batch", [True, False])
def test_dropout_draws_no_floats_and_is_compiled(known_batch):
    case = Case("dropout", LARGE, known_batch=known_batch)
    found, graph = operations(case)
    everything = set().union(*found.values())
    assert not [op for op in everything if "Random" in op]
    compiled = [f for f in graph.library.function if f.attr["_XlaMustCompile"].b]
    hashes = {"BitwiseXor", "RightShift"}
    assert any(hashes <= {n.op for n in f.node_def} for f in compiled)
    assert not hashes & found[""]


@pytest.mark.parametrize(("shape", "starts"), [((128, 256), 1), (LARGE, 2)])
def test_a_small_dropout_starts_one_compiled_function(shape, starts):
    """Forward and backward; of a large one the backward pass draws the mask again."""
    _, graph = operations(Case("dropout", shape))
    assert len(compiled_calls(graph)) == starts


@pytest.mark.parametrize(
    ("shape", "known_batch", "in_rows"),
    [
        ((4096, 1024), True, True),
        ((4096, 1024), False, True),
        ((128, 256), True, True),
        ((501, 1001), True, False),  # not a multiple of a row
    ],
)
def test_dropout_is_drawn_in_short_rows(shape, known_batch, in_rows):
    _, graph = operations(Case("dropout", shape, known_batch=known_batch))
    nodes = {node.name: node for node in graph.node}
    # Not the functions' own arguments: traced for another shape before, they are wider.
    drawn = [
        nodes[call.input[0]].attr["_output_shapes"].list.shape[0].dim[-1].size
        for call in compiled_calls(graph)
    ]
    assert drawn
    assert {size == kernels.ROW for size in drawn} == {in_rows}


def test_keras_dropout_does_draw_floats():
    """The test above could not fail if the search missed what it looks for."""
    case = Case("dropout", LARGE)
    step = steps.compiled_step(case, steps.make_layer(case, "keras"))
    graph = step.get_concrete_function().graph.as_graph_def()
    names = {n.op for n in graph.node}.union(
        *({n.op for n in f.node_def} for f in graph.library.function)
    )
    assert [op for op in names if "Random" in op]


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_the_three_variants_of_a_network(network):
    built = {variant: networks.build(network, variant) for variant in networks.VARIANTS}
    kinds = {name: [type(v) for v in m.layers] for name, m in built.items()}
    ours = kinds["kerasnorm"]
    assert KBatchNorm in ours
    assert (KDropout in ours) == (network != "resnet20")
    assert kinds["keras"] == [BUILTIN.get(kind, kind) for kind in ours]
    assert kinds["neither"] == [kind for kind in ours if kind not in BUILTIN]


def test_the_variant_with_kerass_layers_predicts_the_same():
    ours, builtin, folded = (
        networks.build("cnn", name) for name in ("kerasnorm", "keras", "folded")
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 28, 28, 1))
    expected = ours.predict(images, verbose=0)
    for other in (builtin, folded):
        np.testing.assert_allclose(
            other.predict(images, verbose=0), expected, atol=1e-4
        )


def test_resnet20_has_the_parameters_of_the_paper():
    """0.27 million, He et al. 2015, Table 6; 19 convolutions and a dense layer."""
    model = networks.build("resnet20", "neither")
    weighted = [v for v in model.layers if v.weights]
    kernels = [v for v in weighted if v.weights[0].shape[0] == 3]
    assert len(kernels) == 19
    assert round(model.count_params() / 1e6, 2) == 0.27


@pytest.mark.parametrize("variant", networks.VARIANTS)
def test_the_training_step_trains(variant):
    step = networks.training_step("mlp", variant)
    first, *_, last = (float(step()["loss"]) for _ in range(6))
    assert last < first


def test_the_share_that_is_added():
    medians = {"kerasnorm": 7, "keras": 9, "neither": 5}
    times = {name: {"median": median} for name, median in medians.items()}
    assert networks.added_share(times) == 0.5


def test_the_exported_model_answers_as_the_model(tmp_path):
    model = networks.build("mlp", "kerasnorm")
    images = np.random.default_rng(0).uniform(0, 255, (3, 28, 28, 1)).astype("float32")
    loaded = inference.exported(model, tmp_path / "model")
    np.testing.assert_allclose(
        loaded.serve(images), model(images, training=False), atol=1e-5
    )


FLOATS = 2**24
FILL = (functools.partial, (tf.fill, [FLOATS], 1.0))
"""How to make a step that needs 64 MiB while it runs."""


def test_the_peak_is_what_a_step_needs():
    held = tf.fill([FLOATS], 1.0)
    make, arguments = FILL
    assert memory.measure_cost(make, *arguments).peak == 4 * FLOATS
    assert held.shape == FLOATS


def test_costs_come_from_a_process_of_their_own():
    costs = memory.measure_costs({"fill": FILL}, repeats=1)
    assert costs["fill"].peak == 4 * FLOATS
    assert costs["fill"].first_call > 0


TIMES = {
    name: {
        "median": milli / 1e3,
        "lower_quartile": 0.9 * milli / 1e3,
        "upper_quartile": 1.1 * milli / 1e3,
        "ratio": milli / 10,
        "paired_ratio": milli / 10,
        "rounds": 9,
    }
    for name, milli in {
        "kerasnorm": 10,
        "keras": 30,
        "torch NCHW": 25,
        "torch NHWC": 20,
        "folded": 6,
        "neither": 5,
        "copy": 2,
    }.items()
}
CASE = {"layer": "batch_norm", "shape": [64, 32, 32, 64]}
COSTS = {name: {"first_call": 1.5, "peak": 4e6} for name in networks.VARIANTS}
RESULTS = {
    "layers": {
        "timings": [
            {"case": CASE, "times": TIMES, "others": 0.25},
            {"case": {**CASE, "layer": "dropout"}, "times": TIMES, "others": 0.25},
        ],
        "memory": [{"case": CASE, "peak": {"kerasnorm": 5e7, "keras": 1e8}}],
    },
    "models": {
        "models": [
            {
                "network": "cnn",
                "times": TIMES,
                "others": 0.25,
                "added_share": 0.2,
                "costs": COSTS,
            }
        ]
    },
    "inference": {
        "inference": [{"network": "cnn", "batch": 32, "times": TIMES, "others": 0.25}]
    },
    "scaling": {
        "scaling": [
            {"layer": layer, "elements": size, "times": TIMES, "others": 0.25}
            for layer in steps.LAYERS
            for size in (10_000, 100_000)
        ]
    },
}


@pytest.mark.parametrize("name", command_line.BENCHMARKS)
def test_results_become_json_tables_and_a_picture(name, tmp_path, capsys):
    report(name, RESULTS[name], tmp_path)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == RESULTS[name]
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    lines = (tmp_path / f"{name}.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows
    assert "kerasnorm" in capsys.readouterr().out
    tables = [list(g) for is_row, g in itertools.groupby(rows, bool) if is_row]
    assert all(row.endswith("|") for table in tables for row in table)


def test_the_figures_of_a_row():
    text = render(TABLES["timings"](RESULTS["layers"]["timings"]))
    cells = [cell.strip() for cell in text.splitlines()[4].split("|")[1:-1]]
    assert cells == [
        "batch norm (64, 32, 32, 64)",
        "10.0 (9.00-11.0)",
        "30.0 (27.0-33.0)",
        "20.0 (18.0-22.0)",
        "8.00",
        "3.00",
        "2.00",
        "1.25",
        "0.25",
    ]


def test_the_faster_layout_of_pytorch():
    assert fastest_torch(TIMES) == "torch NHWC"
    assert fastest_torch({"keras": TIMES["keras"]}) is None


def test_milliseconds_have_three_digits():
    assert [milliseconds(s) for s in (1e-5, 1.234e-3, 0.0456, 1.5)] == [
        "0.0100",
        "1.23",
        "45.6",
        "1500",
    ]


def test_the_command_line_runs_a_benchmark(tmp_path, monkeypatch, capsys):
    arguments = ["benchmarks", "inference", "--quick", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setitem(
        command_line.BENCHMARKS,
        "inference",
        lambda quick, patience: RESULTS["inference"],
    )
    command_line.main()
    written = json.loads((tmp_path / "inference.json").read_text())
    assert written["inference"] == RESULTS["inference"]["inference"]
    assert {"cpu", "threads", "date", "tensorflow", "keras"} <= set(
        written["environment"]
    )
    assert "cnn" in capsys.readouterr().out


def test_figures_are_put_into_their_place_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- end of a -->\nafter\n")
    pages.put(page, "a", "| new |")
    expected = "before\n<!-- a -->\n| new |\n<!-- end of a -->\nafter\n"
    assert page.read_text() == expected
    with pytest.raises(ValueError, match="must have one place between <!-- b -->"):
        pages.put(page, "b", "")
    assert page.read_text() == expected
