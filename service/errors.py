"""Own the errors that the service raises on purpose; know nothing of HTTP.

ServiceError
├── BundleError                a model bundle is missing, damaged or contradicts itself
├── AddressError               the address to listen on cannot be had
├── DeviceError                the device asked for cannot be had
├── KeysFileError              the file of API keys cannot be used
├── TracingError               tracing is asked for, but what it takes is not installed
├── NotReadyError              the model is not loaded, or the service is stopping
├── OverloadedError            more uploads than the service takes on at a time
├── QuotaExceededError         the client asks more often than it may
├── DeadlineExceededError      the request was not answered in time
├── InferenceError             the model failed on an image that it should have answered
└── InvalidRequestError        the request cannot be answered as it is
    ├── UnknownHostError           it names a host that is not ours
    ├── UnknownKeyError            it carries no API key, or an unknown one
    ├── InvalidParameterError      a parameter is out of what the model allows
    ├── UnknownModelError          it names a model that is not served
    ├── MalformedFormError         the form does not hold exactly one file part named "file"
    ├── UnsupportedTypeError       the body is of a content type that is not accepted
    ├── UploadTimeoutError         the body did not arrive in time
    ├── UploadTooLargeError        more bytes than allowed
    ├── UnreadableTensorError      not the pixels of images of the model's size
    └── ImageError                 it is an image's own fault; others of the same request are answered
        ├── ImageTooLargeError         more pixels than allowed
        └── UnreadableImageError       not an image in an accepted format, or a damaged one

A message says what was got, what is allowed and what to do; it may be shown to the client.
"""


class ServiceError(Exception):
    """Base of every error that the service raises on purpose."""


class BundleError(ServiceError):
    """A model bundle is missing, damaged or contradicts itself."""


class AddressError(ServiceError):
    """The address to listen on cannot be had."""


class DeviceError(ServiceError):
    """The device asked for cannot be had."""


class KeysFileError(ServiceError):
    """The file of API keys cannot be used."""


class TracingError(ServiceError):
    """Tracing is asked for, but what it takes is not installed."""


class NotReadyError(ServiceError):
    """The model is not loaded yet, or the service is stopping."""


class OverloadedError(ServiceError):
    """More uploads are in flight, by number or by bytes, than the service takes on at a time.

    ``retry_after_seconds`` is how long those in flight are likely to take.
    """

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaExceededError(ServiceError):
    """The client asks more often than it may; ``retry_after_seconds`` is how long it must wait."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceededError(ServiceError):
    """The request was not answered in time."""


class InferenceError(ServiceError):
    """The model failed on an image that it should have answered."""


class InvalidRequestError(ServiceError):
    """The request cannot be answered as it is; its subclasses say why."""


class UnknownHostError(InvalidRequestError):
    """The request names a host that is not ours."""


class UnknownKeyError(InvalidRequestError):
    """The request carries no API key, or an unknown one."""


class InvalidParameterError(InvalidRequestError):
    """A parameter is out of what the model allows."""


class UnknownModelError(InvalidRequestError):
    """The request names a model that is not served."""


class MalformedFormError(InvalidRequestError):
    """The form does not hold exactly one file part named ``file``."""


class UnsupportedTypeError(InvalidRequestError):
    """The body is of a content type that is not accepted."""


class UploadTimeoutError(InvalidRequestError):
    """The body did not arrive in time."""


class UploadTooLargeError(InvalidRequestError):
    """The upload has more bytes than allowed."""


class ImageError(InvalidRequestError):
    """The image itself cannot be answered; others of the same request can."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than allowed."""


class UnreadableImageError(ImageError):
    """The upload is not an image in an accepted format, or a damaged one."""


class UnreadableTensorError(InvalidRequestError):
    """The upload does not hold the pixels of images of the model's size."""
