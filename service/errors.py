"""Own the errors that the service raises on purpose; know nothing of HTTP.

ServiceError
├── BundleError            a model bundle is missing, damaged or contradicts itself
├── DeviceError            the device asked for cannot be had
├── NotReadyError          the model is not loaded, or inference has stopped working
└── InvalidUploadError     the upload cannot be answered as it is
    ├── UploadFormError    the form does not hold exactly one file named "file"
    ├── UnsupportedTypeError  the body is of a type that is not accepted
    ├── UploadTooLargeError   more bytes than allowed
    ├── ImageTooLargeError    more pixels than allowed
    └── UnreadableImageError  not an image in an accepted format, or a damaged one

A message says what was got, what is allowed and what to do; it may be shown to the client.
"""


class ServiceError(Exception):
    """Base of every error that the service raises on purpose."""


class BundleError(ServiceError):
    """A model bundle is missing, damaged or contradicts itself."""


class DeviceError(ServiceError):
    """The device asked for cannot be had."""


class NotReadyError(ServiceError):
    """The model is not loaded yet, or inference has stopped working."""


class InvalidUploadError(ServiceError):
    """The upload cannot be answered as it is; its subclasses say why."""


class UploadFormError(InvalidUploadError):
    """The form does not hold exactly one file part named ``file``."""


class UnsupportedTypeError(InvalidUploadError):
    """The body is of a content type that is not accepted."""


class UploadTooLargeError(InvalidUploadError):
    """The upload has more bytes than allowed."""


class ImageTooLargeError(InvalidUploadError):
    """The image has more pixels than allowed."""


class UnreadableImageError(InvalidUploadError):
    """The upload is not an image in an accepted format, or a damaged one."""
