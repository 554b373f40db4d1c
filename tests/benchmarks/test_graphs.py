"""The operations that a step of our layers consists of. Nothing is timed."""

import pytest

from benchmarks.steps import tensorflow as steps
from benchmarks.steps.cases import Case, make_layer
from kerasnorm.backend.tensorflow import noise

LARGE = (64, 32, 32, 64)


def operations(case):
    """Return the types of operations of our layer's step by function, and its graph."""
    step = steps.compiled_step(case, make_layer(case, "kerasnorm"))
    graph = step.get_concrete_function().graph.as_graph_def(add_shapes=True)
    functions = graph.library.function
    found = {f.signature.name: {n.op for n in f.node_def} for f in functions}
    return {"": {node.op for node in graph.node}, **found}, graph


def compiled_calls(graph):
    """Return the operations that start a function compiled by XLA."""
    compiled = {
        f.signature.name for f in graph.library.function if f.attr["_XlaMustCompile"].b
    }
    return [
        node
        for node in graph.node
        if "f" in node.attr and node.attr["f"].func.name in compiled
    ]


def compiled_functions(graph):
    return [f for f in graph.library.function if f.attr["_XlaMustCompile"].b]


@pytest.mark.parametrize("known_batch", [True, False])
def test_a_large_batch_normalization_is_summed_by_kernels_of_linear_algebra(
    known_batch,
):
    found, graph = operations(Case("batch_norm", LARGE, known_batch=known_batch))
    names = {f.signature.name for f in compiled_functions(graph)}
    for part in ("_multiply_add_", "_subtract_line_"):
        assert any(part in name for name in names)
    everything = set().union(*found.values())
    assert {"BatchMatMulV2", "DepthwiseConv2dNativeBackpropFilter"} <= everything
    if known_batch:
        assert "FusedBatchNormV3" not in everything


def test_a_small_batch_normalization_starts_no_compiled_function():
    _, graph = operations(Case("batch_norm", (128, 256)))
    assert not compiled_functions(graph)


def test_a_batch_of_unknown_size_is_traced_in_few_operations():
    """All ways to sum it are there, and each operation delays the first step."""
    _, graph = operations(Case("batch_norm", LARGE, known_batch=False))
    numbers = [len(function.node_def) for function in graph.library.function]
    assert len(graph.node) + sum(numbers) < 3000


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
    compiled = compiled_functions(graph)
    hashes = {"BitwiseXor", "RightShift"}
    assert any(hashes <= {n.op for n in f.node_def} for f in compiled)
    assert not hashes & found[""]


@pytest.mark.parametrize(("shape", "starts"), [((128, 256), 1), (LARGE, 2)])
def test_a_small_dropout_starts_one_compiled_function(shape, starts):
    """The backward pass of a large one draws the mask again: a second start."""
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
    # The calls' inputs, since the functions' own arguments may be of an older trace.
    drawn = [
        nodes[call.input[0]].attr["_output_shapes"].list.shape[0].dim[-1].size
        for call in compiled_calls(graph)
    ]
    assert drawn
    assert {size == noise.ROW for size in drawn} == {in_rows}


def test_keras_dropout_does_draw_floats():
    """So the search of the tests above does find what it looks for."""
    case = Case("dropout", LARGE)
    step = steps.compiled_step(case, make_layer(case, "keras"))
    graph = step.get_concrete_function().graph.as_graph_def()
    names = {n.op for n in graph.node}.union(
        *({n.op for n in f.node_def} for f in graph.library.function)
    )
    assert [op for op in names if "Random" in op]
