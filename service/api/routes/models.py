"""``GET /models`` and the paths below it: the served model, its measurements and its card."""

from fastapi import APIRouter, Request, Response

from service.api.openapi import problem_responses, text_response
from service.api.schemas import InputFormat, ModelDetails, Models
from service.errors import NotReadyError, UnknownModelError
from service.inference.classifier import Classifier
from service.inference.live_model import LiveModel

router = APIRouter(prefix="/models")


@router.get("", summary="The models that are served", responses=problem_responses(400, 401, 503))
async def list_models(request: Request) -> Models:
    """List the model that is served, with its classes, input and metrics."""
    classifier = _serving(request)
    manifest, spec = classifier.manifest, classifier.input_spec
    height, width = spec.size
    details = ModelDetails(
        name=manifest.name,
        version=manifest.version,
        class_names=list(manifest.class_names),
        input=InputFormat(height=height, width=width, preprocessing=spec.preprocessing),
        metrics=manifest.metrics,
    )
    return Models(models=[details])


@router.get(
    "/{name}/card",
    summary="A model's card",
    response_class=Response,
    responses=text_response("text/markdown") | problem_responses(400, 401, 404, 422, 503),
)
async def read_card(request: Request, name: str) -> Response:
    """Return the card of the model that is served, in Markdown."""
    classifier = _serving(request)
    if name != classifier.manifest.name:
        raise UnknownModelError(
            f"the model {name[:100]!r} is not served; use {classifier.manifest.name!r}"
        )
    return Response(classifier.card, media_type="text/markdown")


def _serving(request: Request) -> Classifier:
    model: LiveModel = request.app.state.predictor.model
    if model.classifier is None:
        raise NotReadyError(f"the service is {model.status} and has no model yet; try again later")
    return model.classifier
