"""Errors as TensorFlow Serving reports them: a code of `tf.errors` and one message."""

import logging
import re
from http import HTTPStatus

import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2

_logger = logging.getLogger(__name__)
_SURROGATES = re.compile("[\ud800-\udfff]")
_HTTP_STATUS = {
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


def missing_signature(name: str) -> tf.errors.OpError:
    """Return the error of a signature that a model does not have."""
    return tf.errors.FailedPreconditionError(
        None, None, f'Serving signature key "{name}" not found.'
    )


def unimplemented(message: str) -> tf.errors.OpError:
    """Return the error of a valid request that is not supported."""
    return tf.errors.UnimplementedError(None, None, message)


def exhausted(message: str) -> tf.errors.OpError:
    """Return the error of a request that there is no room for."""
    return tf.errors.ResourceExhaustedError(None, None, message)


class TooLargeError(tf.errors.ResourceExhaustedError):
    """A request that needs more memory than a request may have."""


def too_large(message: str) -> tf.errors.OpError:
    """Return the error of a request that there will never be room for."""
    return TooLargeError(None, None, message)


def http_status(error: tf.errors.OpError) -> int:
    """Return the status that answers an error."""
    if isinstance(error, TooLargeError):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return _HTTP_STATUS[error.error_code]


def late(message: str) -> tf.errors.OpError:
    """Return the error of a request whose time is over."""
    return tf.errors.DeadlineExceededError(None, None, message)


def shown(error: tf.errors.OpError) -> str:
    """Return an error's message as Unicode; bytes that are not UTF-8 become U+FFFD."""
    return _SURROGATES.sub("\ufffd", error.message)


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


def answered(error: Exception) -> tf.errors.OpError:
    """Return the error to answer a request with.

    One that nobody expected goes to the log, and its text to nobody else. What is
    returned refers to nothing that the request has made.
    """
    if isinstance(error, tf.errors.OpError):
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)
    _logger.error("A request could not be answered.", exc_info=error)
    message = "The request could not be answered. The log of the service says why."
    return tf.errors.UnknownError(None, None, message)
