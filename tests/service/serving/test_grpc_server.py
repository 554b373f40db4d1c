"""The gRPC API, by TensorFlow Serving's own stubs."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("simdjson", reason="pip install --group serve")
pytest.importorskip("tensorflow_serving", reason="pip install --group serve")

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from service.serving.config import ServingConfig
from service.serving.grpc_server import GrpcServer
from service.serving.inference import Inference
from service.serving.routes import Serving
from tests.service.serving.fuzz_memory import varint
from tests.service.serving.served import ECHOED, until
from training.errors import UserError


class Stubs:
    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]
        )
        predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.predict = predictions.Predict
        self.metadata = predictions.GetModelMetadata
        self.classify = predictions.Classify
        self.status = model_service_pb2_grpc.ModelServiceStub(
            self.channel
        ).GetModelStatus


@pytest.fixture(scope="module")
def serving(
    tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[Serving]:
    base = tmp_path_factory.mktemp("grpc") / "models"
    shutil.copytree(models, base)
    shutil.copytree(base / "half" / "1", base / "half" / "2")
    (base / "half" / "3").mkdir()
    config = base / "models.config"
    names = ("defaults", "echo", "pair", "text", "troubles")
    config.write_text(
        "model_config_list {"
        + "".join(f'config {{ name: "{n}" base_path: "{n}" }}' for n in names)
        + """
        config {
          name: "half" base_path: "half"
          model_version_policy { all {} }
          version_labels { key: "stable" value: 1 }
        } }"""
    )
    serving = Serving(ServingConfig(base, config, timeout=20))
    serving.start()
    assert serving.servables.wait_until_settled(60)
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def stubs(serving: Serving) -> Iterator[Stubs]:
    server = GrpcServer(serving, "127.0.0.1:0")
    server.start()
    stubs = Stubs(server.port)
    yield stubs
    stubs.channel.close()
    server.stop(5).wait()


def request(model: str, signature: str = "", **inputs: Any) -> Any:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message


def test_predict(stubs: Stubs) -> None:
    response = stubs.predict(request("half", x=np.float32([1, 2, 5])))
    np.testing.assert_array_equal(
        tf.make_ndarray(response.outputs["y"]), np.float32([2.5, 3, 4.5])
    )
    assert response.model_spec.name == "half"
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"


def test_versions_and_labels(stubs: Stubs) -> None:
    for choice in ({"version": 1}, {"label": "stable"}):
        message = request("half", x=np.float32([1]))
        if "version" in choice:
            message.model_spec.version.value = 1
        else:
            message.model_spec.version_label = "stable"
        assert stubs.predict(message).model_spec.version.value == 1


@pytest.mark.parametrize(
    "dtype", [name for name in ECHOED if name not in ("bool", "string")]
)
def test_every_type_comes_back(stubs: Stubs, dtype: str) -> None:
    values = np.array([[1, 2, 3], [100, 5, 0.1]]).astype(dtype)
    outputs = stubs.predict(request("echo", dtype, x=values)).outputs
    returned = tf.make_ndarray(outputs["y"])
    assert returned.dtype == values.dtype
    np.testing.assert_array_equal(returned, values)


@pytest.mark.parametrize(
    ("dtype", "field"),
    [
        *(("float32", "float_val"), ("float64", "double_val"), ("bool", "bool_val")),
        *(("int8", "int_val"), ("uint8", "int_val"), ("int16", "int_val")),
        *(("uint16", "int_val"), ("int32", "int_val"), ("int64", "int64_val")),
        *(("uint32", "uint32_val"), ("uint64", "uint64_val")),
    ],
)
def test_values_are_in_the_field_of_their_type(
    stubs: Stubs, dtype: str, field: str
) -> None:
    """TensorFlow Serving's example clients read `float_val`."""
    for shape in ((3,), (1,), (), (2, 0)):
        values = np.ones(shape, dtype)
        tensor = stubs.predict(request("echo", dtype, x=values)).outputs["y"]
        assert list(getattr(tensor, field)) == values.ravel().tolist()
        assert not tensor.tensor_content
        np.testing.assert_array_equal(tf.make_ndarray(tensor), values)


def test_strings_and_several_outputs(stubs: Stubs) -> None:
    outputs = stubs.predict(request("text", s=[b"ab", b"\xff"])).outputs
    assert list(tf.make_ndarray(outputs["raw_bytes"])) == [b"ab", b"\xff"]
    assert list(tf.make_ndarray(outputs["upper"])) == [b"AB", b"\xff"]
    scalar = stubs.predict(request("echo", "string", x=b"one")).outputs
    assert tf.make_ndarray(scalar["y"]).item() == b"one"


def test_defaults_stand_for_inputs_that_are_left_out(stubs: Stubs) -> None:
    x = np.float32([1, 2])
    for inputs, factor in (({}, 10), ({"number": np.float32(3)}, 3)):
        output = stubs.predict(request("defaults", x=x, **inputs)).outputs["y"]
        np.testing.assert_array_equal(tf.make_ndarray(output), factor * x)


def test_a_signature_without_inputs_runs(stubs: Stubs) -> None:
    """TensorFlow Serving's counter, a model of its tests, has such signatures."""
    outputs = stubs.predict(request("troubles", "no_inputs")).outputs
    assert tf.make_ndarray(outputs["y"]).tolist() == [1]


def test_the_output_filter(stubs: Stubs) -> None:
    message = request("text", s=[b"ab"])
    message.output_filter.append("length")
    assert set(stubs.predict(message).outputs) == {"length"}


def with_filter(*names: str) -> Any:
    message = request("text", s=[b"a"])
    message.output_filter.extend(names)
    return message


def of_version(number: int) -> Any:
    message = request("half", x=np.float32([1]))
    message.model_spec.version.value = number
    return message


def of_label(label: str) -> Any:
    message = request("half", x=np.float32([1]))
    message.model_spec.version_label = label
    return message


def broken_tensor() -> Any:
    message = request("half", x=np.float32([1]))
    message.inputs["x"].tensor_shape.dim[0].size = 7
    message.inputs["x"].tensor_content = b"abc"
    return message


ERRORS = [
    (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    (
        request("nope"),
        "NOT_FOUND",
        "Servable not found for request: Latest(nope)",
    ),
    (
        of_version(7),
        "NOT_FOUND",
        "Servable not found for request: Specific(half, 7)",
    ),
    (of_version(3), "NOT_FOUND", "Servable not found for request: Specific(half, 3)"),
    (of_label("L"), "INVALID_ARGUMENT", "Unrecognized servable version label: L"),
    (
        request("half", "s"),
        "FAILED_PRECONDITION",
        'Serving signature key "s" not found.',
    ),
    (
        request("pair", a=np.float32([1])),
        "INVALID_ARGUMENT",
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). "
        "Sent extra: {}. Missing but required: {b}.",
    ),
    (
        request("pair", a=np.float32([1]), c=1),
        "INVALID_ARGUMENT",
        "Signature input alias: b(feed name: serving_default_b:0) not found in request "
        "and no default value provided.",
    ),
    (
        request("defaults", y=np.float32([1])),
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: serving_default_x:0) not found in request "
        "and no default value provided. Inputs expected to be in the request {y}, or "
        "default input alias set: number",
    ),
    (
        request("defaults", x=np.float32([1]), z=1),
        "INVALID_ARGUMENT",
        "Inputs contains invalid name. Used request inputs: x, request input: x,z",
    ),
    (
        request("defaults", x=np.float32([1]), number=np.int32(3)),
        "INVALID_ARGUMENT",
        "Expects arg[number] to be float32 but int32 is provided",
    ),
    (
        request("half", x=np.int32([1])),
        "INVALID_ARGUMENT",
        "Expects arg[x] to be float32 but int32 is provided",
    ),
    (
        with_filter("z"),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z "
        "Outputs expected to be in the set {length,raw_bytes,upper}.",
    ),
    (
        with_filter("upper", "upper"),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: upper",
    ),
    (broken_tensor(), "INVALID_ARGUMENT", "Input x is not a tensor: "),
    (request("troubles", x=np.float32([-1])), "INVALID_ARGUMENT", "assertion failed"),
]


@pytest.mark.parametrize(("message", "code", "details"), ERRORS)
def test_errors(stubs: Stubs, message: Any, code: str, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(message)
    assert caught.value.code().name == code
    assert caught.value.details().startswith(details)
    assert "Traceback" not in caught.value.details()


def splat(dtype: str, *sizes: int) -> Any:
    """Return one value that stands for a whole tensor."""
    value = np.ones((1,), tf.as_dtype(dtype).as_numpy_dtype)
    if dtype == "string":
        value = np.array([b"x" * 100], object)
    message = request("echo", dtype, x=value)
    del message.inputs["x"].tensor_shape.dim[:]
    for size in sizes:
        message.inputs["x"].tensor_shape.dim.add().size = size
    return message


@pytest.mark.parametrize("dtype", ECHOED)
def test_one_value_does_not_become_a_tensor_of_gigabytes(
    stubs: Stubs, serving: Serving, dtype: str
) -> None:
    for sizes in ([10**8], [10**6, 10**6]):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.predict(splat(dtype, *sizes))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "at most 67108864 bytes" in caught.value.details()
    for sizes in ([-1], [2**62, 2**62], [1] * 100):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.predict(splat(dtype, *sizes))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    few = stubs.predict(splat(dtype, 2, 3)).outputs["y"]
    assert tf.make_ndarray(few).shape == (2, 3)
    assert serving.workers.room.taken == serving.workers.bodies.taken == 0


def test_a_message_of_empty_objects_is_refused_before_it_is_parsed(
    stubs: Stubs,
) -> None:
    """2 bytes each, in a variant; parsed they would take a hundred times as many."""
    tensors = b"\x1a\x00" * 3_000_000
    tensor = b"\x7a" + varint(len(tensors)) + tensors
    entry = b"\x0a\x01x\x12" + varint(len(tensor)) + tensor
    message = request("echo").SerializeToString()
    message += b"\x12" + varint(len(entry)) + entry
    predict = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for sent, code, details in (
        (message, "RESOURCE_EXHAUSTED", "bytes of memory when it is decoded"),
        (b"\xff\xff", "INVALID_ARGUMENT", "The message is not a PredictRequest"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            predict(sent)
        assert caught.value.code().name == code
        assert details in caught.value.details()


def test_metadata_beyond_64_kib_is_refused(stubs: Stubs) -> None:
    message = request("half", x=np.float32([1]))
    assert stubs.predict(message, metadata=[("x", "x" * 60_000)]).outputs
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(message, metadata=[("x", "x" * 70_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_details_are_no_longer_than_clients_take(stubs: Stubs) -> None:
    message = request("half", x=np.float32([1]), **{"x" * 100_000: np.float32([1])})
    with pytest.raises(grpc.RpcError, match="input size does not match") as caught:
        stubs.predict(message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_error_that_nobody_expected_is_in_the_log_alone(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("/a/secret/path")

    monkeypatch.setattr(Inference, "run", broken)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(request("half", x=np.float32([1])))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert "secret" not in caught.value.details()
    assert "RuntimeError: /a/secret/path" in caplog.text
    assert "in broken" in caplog.text


def test_metadata(stubs: Stubs) -> None:
    message = get_model_metadata_pb2.GetModelMetadataRequest()
    message.model_spec.name = "pair"
    for field, complaint in (("", "at least one"), ("x", "x is not supported")):
        message.metadata_field[:] = [field] if field else []
        with pytest.raises(grpc.RpcError, match=complaint):
            stubs.metadata(message)
    message.metadata_field[:] = ["signature_def"]
    response = stubs.metadata(message)
    assert response.model_spec.version.value == 1
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(definitions)
    assert set(definitions.signature_def["serving_default"].inputs) == {"a", "b"}


def test_status(stubs: Stubs) -> None:
    message = get_model_status_pb2.GetModelStatusRequest()
    with pytest.raises(grpc.RpcError, match="Missing ModelSpec"):
        stubs.status(message)
    message.model_spec.name = "half"
    versions = stubs.status(message).model_version_status
    states = get_model_status_pb2.ModelVersionStatus
    assert [(v.version, v.state) for v in versions] == [
        *((3, states.END), (2, states.AVAILABLE), (1, states.AVAILABLE)),
    ]
    assert versions[0].status.error_code == tf.errors.UNKNOWN
    assert "SavedModel file does not exist" in versions[0].status.error_message
    assert versions[1].status.error_code == tf.errors.OK
    message.model_spec.version.value = 7
    with pytest.raises(grpc.RpcError, match="Could not find version 7 of model half"):
        stubs.status(message)


def test_the_client_s_deadline_ends_the_run(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(request("troubles", "count", n=np.int32([10**9])), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # It does not go on: the server's stop, which waits for it, would not end.
    assert stubs.predict(request("half", x=np.float32([1])), timeout=10).outputs


def test_requests_that_never_arrive_keep_no_others_waiting(
    tmp_path: Path, models: Path
) -> None:
    shutil.copytree(models / "half", tmp_path / "half")
    patient = Serving(ServingConfig(tmp_path, timeout=1.5, threads=1))
    patient.start()
    assert patient.servables.wait_until_settled(60)
    server = GrpcServer(patient, "127.0.0.1:0")
    server.start()
    stubs, end = Stubs(server.port), threading.Event()

    def never() -> Iterator[bytes]:
        end.wait()
        yield from ()

    path = "/tensorflow.serving.PredictionService/Predict"
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        slow = [channel.stream_unary(path).future(never()) for _ in range(5)]
        time.sleep(0.5)
        assert stubs.predict(request("half", x=np.float32([1]))).outputs
        # Nor do they stay: the connection's age ends them, here after 3 + 1.5 s.
        for future in slow:
            with pytest.raises(grpc.RpcError):
                future.result(timeout=60)
        end.set()
    # Those who behave see nothing of it.
    assert stubs.predict(request("half", x=np.float32([1]))).outputs
    stubs.channel.close()
    server.stop(5).wait()
    patient.stop()


def test_an_answer_has_room_until_it_is_read(serving: Serving, stubs: Stubs) -> None:
    message = request("echo", x=np.zeros(2**21, np.float32)).SerializeToString()
    # As a stream of answers, gRPC reads no more of them than the client asks for.
    call = stubs.channel.unary_stream("/tensorflow.serving.PredictionService/Predict")
    answers, room = call(message), serving.workers.answers
    until(lambda: room.taken)
    size = room.taken
    (answer,) = answers
    assert size == 2 * len(answer)
    until(lambda: not room.taken)
    call(message).cancel()
    until(lambda: not room.taken)
    room.take(room.most)
    with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        next(call(message))
    room.give(room.most)


def test_who_waits_for_others_too_long_is_told(serving: Serving, stubs: Stubs) -> None:
    endless = request("troubles", "wait", x=np.float32([1]))
    tasks = [
        stubs.predict.future(endless, timeout=3) for _ in range(serving.config.threads)
    ]
    time.sleep(0.5)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.predict(request("half", x=np.float32([1])), timeout=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for task in tasks:
        assert task.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stubs.predict(request("half", x=np.float32([1])), timeout=10).outputs


def test_what_is_not_served_is_unimplemented(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.classify(classification_pb2.ClassificationRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_of_an_image_batch(stubs: Stubs) -> None:
    """More than gRPC's own limit of 4 MB."""
    images = np.random.default_rng(0).random((32, 224, 224, 3), np.float32)
    outputs = stubs.predict(request("echo", x=images)).outputs
    np.testing.assert_array_equal(tf.make_ndarray(outputs["y"]), images)


def test_requests_are_counted(serving: Serving, stubs: Stubs) -> None:
    stubs.predict(request("half", x=np.float32([1])))
    page = serving.metrics.page().decode()
    assert ':tensorflow:serving:request_count{model_name="half",status="OK"}' in page
    assert 'API="Predict",entrypoint="GRPC",model_name="half"' in page


def test_options_beyond_grpc_s_own_are_its_largest(tmp_path: Path) -> None:
    config = ServingConfig(tmp_path, timeout=2e6, max_body_bytes=3 * 10**9)
    GrpcServer(Serving(config), "127.0.0.1:0").stop(0).wait()


def test_a_port_in_use_is_one_line(serving: Serving) -> None:
    first = GrpcServer(serving, "127.0.0.1:0")
    try:
        with pytest.raises(UserError, match=f"`--grpc-port` .*{first.port}"):
            GrpcServer(serving, f"127.0.0.1:{first.port}")
    finally:
        first.stop(0).wait()
