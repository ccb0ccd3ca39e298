"""The errors that the service raises on purpose. Knows nothing about HTTP.

ServiceError
├── BundleError                a model bundle is missing, damaged or contradicts itself
├── AddressError               the service cannot listen on the address
├── DeviceError                the requested device is not available
├── KeysFileError              the file of API keys is missing or not valid
├── TemporaryFolderError       no folder for temporary files is writable
├── TracingError               tracing is requested, but its packages are not installed
├── SettingsError              a setting is not valid, or the file of settings cannot be read
├── VariableError              an environment variable of another program is not valid
├── SourceError                the images to be classified offline are not found
├── NotReadyError              the model is not loaded, or the service is stopping
├── OverloadedError            too many uploads are in flight
├── QuotaExceededError         the client sends too many images
├── DeadlineExceededError      the request was not answered in time
├── InferenceError             the model failed on a valid image
└── InvalidRequestError        the client must change the request
    ├── UnknownHostError           the Host header is not a name of this service
    ├── UnknownKeyError            the API key is missing or unknown
    ├── InvalidParameterError      a query parameter is out of range or repeated
    ├── UnknownModelError          the named model is not served
    ├── MalformedFormError         the form does not hold exactly one file part named "file"
    ├── InvalidInferenceRequestError  a request of the Open Inference Protocol breaks its rules
    ├── UnsupportedTypeError       the content type is not accepted
    ├── UploadTimeoutError         the body stopped arriving, or arrived too slowly
    ├── UploadTooLargeError        the upload has more bytes or images than allowed
    ├── UnreadableTensorError      the upload is not a batch of images of the model's size
    └── ImageError                 one image is bad; the other images are answered
        ├── ImageTooLargeError         the image has more pixels than allowed
        └── UnreadableImageError       the upload is damaged or not an image in an accepted format

A message says what was received, what is allowed and what to do. Clients see the messages of the
errors that ``service.api.problems`` lists.
"""


class ServiceError(Exception):
    """Base of every error that the service raises on purpose."""


class BundleError(ServiceError):
    """A model bundle is missing, damaged or contradicts itself."""


class AddressError(ServiceError):
    """The service cannot listen on the address."""


class DeviceError(ServiceError):
    """The requested device is not available."""


class KeysFileError(ServiceError):
    """The file of API keys is missing or not valid."""


class TemporaryFolderError(ServiceError):
    """No folder for temporary files is writable."""


class TracingError(ServiceError):
    """Tracing is requested, but its packages are not installed."""


class VariableError(ServiceError):
    """An environment variable of another program is not valid."""


class SettingsError(ServiceError):
    """A setting is not valid, or the file of settings cannot be read."""


class SourceError(ServiceError):
    """The images to be classified offline are not found."""


class WorkerError(ServiceError):
    """A worker of an offline run failed."""


class NotReadyError(ServiceError):
    """The model is not loaded yet, or the service is stopping."""


class OverloadedError(ServiceError):
    """Too many uploads are in flight, by number or by bytes.

    ``retry_after_seconds`` is about how long the uploads in flight will take.
    """

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaExceededError(ServiceError):
    """The client sends too many requests; it must wait for ``retry_after_seconds``."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceededError(ServiceError):
    """The request was not answered in time."""


class InferenceError(ServiceError):
    """The model failed on a valid image."""


class InvalidRequestError(ServiceError):
    """The client must change the request; the subclass says what is wrong with it."""


class UnknownHostError(InvalidRequestError):
    """The request's Host header is not a name of this service."""


class UnknownKeyError(InvalidRequestError):
    """The request's API key is missing or unknown."""


class InvalidParameterError(InvalidRequestError):
    """A query parameter is out of range or repeated, or there are too many parameters."""


class UnknownModelError(InvalidRequestError):
    """The request names a model that is not served."""


class MalformedFormError(InvalidRequestError):
    """The form does not hold exactly one file part named ``file``."""


class InvalidInferenceRequestError(InvalidRequestError):
    """A request of the Open Inference Protocol breaks one of its rules."""


class UnsupportedTypeError(InvalidRequestError):
    """The body's content type is not accepted."""


class UploadTimeoutError(InvalidRequestError):
    """The body stopped arriving, or arrived too slowly."""


class UploadTooLargeError(InvalidRequestError):
    """The upload has more bytes than allowed."""


class ImageError(InvalidRequestError):
    """One image is bad; the other images of the same request are answered."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than allowed."""


class UnreadableImageError(ImageError):
    """The upload is damaged or not an image in an accepted format."""


class UnreadableTensorError(InvalidRequestError):
    """The upload is not a batch of images of the model's size."""
