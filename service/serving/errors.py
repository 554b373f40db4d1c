"""Errors as TensorFlow Serving reports them: a code of `tf.errors` and one message."""

import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2

HTTP_STATUS = {
    tf.errors.OK: 200,
    tf.errors.CANCELLED: 499,
    tf.errors.UNKNOWN: 500,
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.DEADLINE_EXCEEDED: 504,
    tf.errors.NOT_FOUND: 404,
    tf.errors.ALREADY_EXISTS: 409,
    tf.errors.PERMISSION_DENIED: 403,
    tf.errors.UNAUTHENTICATED: 401,
    tf.errors.RESOURCE_EXHAUSTED: 429,
    tf.errors.FAILED_PRECONDITION: 400,
    tf.errors.ABORTED: 409,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.UNIMPLEMENTED: 501,
    tf.errors.INTERNAL: 500,
    tf.errors.UNAVAILABLE: 503,
    tf.errors.DATA_LOSS: 500,
}


def invalid(message: str) -> tf.errors.OpError:
    """Return the error of a mistake in the request."""
    return tf.errors.InvalidArgumentError(None, None, message)


def not_found(message: str) -> tf.errors.OpError:
    """Return the error of a model or version that does not exist."""
    return tf.errors.NotFoundError(None, None, message)


def unimplemented(message: str) -> tf.errors.OpError:
    """Return the error of a valid request that is not supported."""
    return tf.errors.UnimplementedError(None, None, message)


def exhausted(message: str) -> tf.errors.OpError:
    """Return the error of a request that there is no room for."""
    return tf.errors.ResourceExhaustedError(None, None, message)


def late(message: str) -> tf.errors.OpError:
    """Return the error of a request whose time is over."""
    return tf.errors.DeadlineExceededError(None, None, message)


def code_name(code: int) -> str:
    """Return a code's name, such as INVALID_ARGUMENT."""
    return error_codes_pb2.Code.Name(code)


def of_runtime(error: tf.errors.OpError) -> tf.errors.OpError:
    """Return an error of a session as the runtime has raised it.

    `Session.run` catches it and raises another one, with stack traces in its message.
    """
    original = error.__context__
    if isinstance(original, tf.errors.OpError):
        return type(error)(None, None, original.message)
    return error


def as_op_error(error: Exception) -> tf.errors.OpError:
    """Return the error itself, or TensorFlow's unknown error with its message."""
    if isinstance(error, tf.errors.OpError):
        return error
    return tf.errors.UnknownError(None, None, f"{type(error).__name__}: {error}")
