"""The service on Ray Serve: each replica runs the whole application in its own process."""

from fastapi import FastAPI
from ray import serve

from service.app import create_app
from service.server.configuration import read_configuration
from service.server.environment import log_unknown
from service.telemetry.logs import configure_logging


def build() -> FastAPI:
    """Build the application of a replica. It loads its models before it takes requests."""
    settings = read_configuration({}).settings
    configure_logging(settings.log_level, settings.log_format)
    log_unknown()
    return create_app(settings, starts_with_models=True)


@serve.ingress(build)
class FashionClassifier:
    """The replicas; serve.yaml says how many there are and what each one may use."""

    app: FastAPI

    def check_health(self) -> None:
        """Raise an error, for which Ray replaces the replica, if a model does not work."""
        status = self.app.state.predictor.models.status
        if status != "ready":
            raise RuntimeError(f"the models are {status}; the replica's log says why")


deployment = serve.deployment(FashionClassifier)
application = deployment.bind()
