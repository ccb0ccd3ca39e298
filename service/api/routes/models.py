"""``GET /models`` and the paths below it: the served models, their measurements and cards."""

from fastapi import APIRouter, Request, Response

from service.api.openapi import problem_responses, text_response
from service.api.schemas import InputFormat, ModelDetails, Models
from service.errors import UnknownModelError
from service.inference.classifier import Classifier
from service.inference.predictor import Predictor

router = APIRouter(prefix="/models")


@router.get("", summary="The models that are served", responses=problem_responses(400, 401, 503))
async def list_models(request: Request) -> Models:
    """List the models that are served, with their classes, input and metrics."""
    return Models(models=[_describe(classifier) for classifier in _serving(request)])


@router.get(
    "/{name}/card",
    summary="A model's card",
    response_class=Response,
    responses=text_response("text/markdown") | problem_responses(400, 401, 404, 422, 503),
)
async def read_card(request: Request, name: str) -> Response:
    """Return the card of a model that is served, in Markdown."""
    cards = {each.manifest.name: each.card for each in _serving(request)}
    if name not in cards:
        raise UnknownModelError(
            f"the model {name[:100]!r} is not served; use {' or '.join(map(repr, cards))}"
        )
    return Response(cards[name], media_type="text/markdown")


def _describe(classifier: Classifier) -> ModelDetails:
    manifest, spec = classifier.manifest, classifier.input_spec
    height, width = spec.size
    sets = manifest.prediction_sets
    return ModelDetails(
        name=manifest.name,
        version=manifest.version,
        class_names=list(manifest.class_names),
        input=InputFormat(height=height, width=width, preprocessing=spec.preprocessing),
        coverage_range=(sets.coverages[0], sets.coverages[-1]) if sets else None,
        metrics=manifest.metrics,
    )


def _serving(request: Request) -> list[Classifier]:
    predictor: Predictor = request.app.state.predictor
    return [model.current().classifier for model in predictor.models]
