"""Whether the operations of a signature take inputs of a shape that it does not name.

TensorFlow Serving compares no shapes and leaves it to the operations. Some of them then
end the process: oneDNN's convolution of an input with two axes does. So TensorFlow's
shape functions are asked first, with placeholders of the shape that was sent.
"""

import collections
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from service.serving.errors import invalid
from service.serving.signatures import Signature

v1 = tf.compat.v1
Shapes = Mapping[str, Sequence[int]]

_MOST_KEPT = 1000  # answers
_LARGEST_CONSTANT = 1024  # bytes of a constant that may be a shape or an axis
_UNINFERRED = "_disable_call_shape_inference"
# Operations whose functions have no shape inference: how many inputs come before those
# of the functions.
_BRANCHING = {
    **dict.fromkeys(("If", "StatelessIf", "Case", "StatelessCase"), 1),
    **dict.fromkeys(("While", "StatelessWhile"), 0),
}


class ShapeCheck:
    """Asks the shape functions of a model's graph, once for each shape.

    Args:
        graph: The graph of the session.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._graphs: dict[Signature, Any] = {}
        self._answers: collections.OrderedDict[Any, str | None] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def check(self, signature: Signature, shapes: Shapes) -> None:
        """Check that a signature can run with inputs of these shapes.

        Args:
            signature: A signature of the graph.
            shapes: The shape of every input by name.

        Raises:
            tf.errors.InvalidArgumentError: If an operation refuses them.
        """
        if all(
            tensor.shape.rank is not None
            and tensor.shape.is_compatible_with(shapes[name])
            for name, tensor in signature.inputs.items()
        ):
            return
        key = (signature, *((name, tuple(shapes[name])) for name in signature.inputs))
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            else:
                self._answers[key] = self._refusal(signature, shapes)
                while len(self._answers) > _MOST_KEPT:
                    self._answers.popitem(last=False)
            refusal = self._answers[key]
        if refusal is not None:
            raise invalid(refusal)

    def _refusal(self, signature: Signature, shapes: Shapes) -> str | None:
        """Return the message of the operation that refuses the shapes, if one does."""
        if signature not in self._graphs:
            self._graphs[signature] = _graph_of(signature, self._graph)
        with tf.Graph().as_default():
            placeholders = {
                _edge(tensor.name): v1.placeholder(tensor.dtype, shapes[name])
                for name, tensor in signature.inputs.items()
            }
            definition = self._graphs[signature]
            used = {_edge(edge) for node in definition.node for edge in node.input}
            try:
                tf.import_graph_def(
                    definition,
                    {e: p for e, p in placeholders.items() if e in used},
                    name="",
                )
            except ValueError as error:
                return str(error)
        return None


def _graph_of(signature: Signature, graph: Any) -> Any:
    """Return the part of a graph between a signature's inputs and outputs.

    It is for shape inference alone, so it has no large constants.
    """
    whole = graph.as_graph_def()
    nodes = {node.name: node for node in whole.node}
    fed = {_edge(tensor.name) for tensor in signature.inputs.values()}
    part = v1.GraphDef(versions=whole.versions)
    part.library.CopyFrom(whole.library)
    outputs = [t for t in signature.outputs.values() if _edge(t.name) not in fed]
    seen = {tensor.op.name for tensor in outputs}
    waiting = list(seen)
    while waiting:
        node = part.node.add()
        node.CopyFrom(nodes[waiting.pop()])
        # What an operation only waits for has nothing to do with its shapes.
        data = [edge for edge in node.input if not edge.startswith("^")]
        node.input[:] = data
        for edge in data:
            name = edge.partition(":")[0]
            if _edge(edge) not in fed and name not in seen:
                seen.add(name)
                waiting.append(name)
    signatures = {f.signature.name: f.signature for f in part.library.function}
    _simplify(part.node, signatures)
    for function in part.library.function:
        _simplify(function.node_def, signatures)
    return part


def _simplify(nodes: Any, functions: Mapping[str, Any]) -> None:
    """Let shape inference see all functions that nodes call, and no large constants."""
    for node in list(nodes):
        if node.op == "Const" and node.attr["value"].ByteSize() > _LARGEST_CONSTANT:
            shape = node.attr["value"].tensor.tensor_shape
            dtype = node.attr["dtype"].type
            node.ClearField("attr")
            node.op = "Placeholder"
            node.attr["dtype"].type = dtype
            node.attr["shape"].shape.CopyFrom(shape)
        elif node.op in _BRANCHING:
            for number, name in enumerate(_called(node)):
                _add_call(nodes.add(), node, f"{node.name}/{number}", functions[name])
        if _UNINFERRED in node.attr:
            del node.attr[_UNINFERRED]


def _called(node: Any) -> Iterator[str]:
    """Yield the names of the functions that a node may call."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name


def _add_call(call: Any, node: Any, name: str, function: Any) -> None:
    """Make a node that calls one of the functions of a branching node."""
    call.name = name
    call.op = "StatefulPartitionedCall"
    data = [edge for edge in node.input if not edge.startswith("^")]
    call.input.extend(data[_BRANCHING[node.op] :])
    call.attr["f"].func.name = function.name
    call.attr["Tin"].list.type.extend(argument.type for argument in function.input_arg)
    call.attr["Tout"].list.type.extend(result.type for result in function.output_arg)


def _edge(name: str) -> str:
    """Return the name of a tensor with the number of the output."""
    return name if ":" in name else f"{name}:0"
