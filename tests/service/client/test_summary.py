"""The summary of a run."""

from pathlib import Path

from rich.console import Console

from service.client import NoAnswerError, Prediction
from service.client.rows import Row
from service.client.summary import Summary

CLASSES = ("Coat", "Bag", "[bold]Shirt")


def answered(path: str, class_id: int, probability: float = 0.75) -> Row:
    """Return the row of an image that was classified."""
    prediction = Prediction(
        class_id=class_id,
        class_name=CLASSES[class_id],
        probability=probability,
        probabilities=dict.fromkeys(CLASSES, 0.0),
        model_name="model",
        model_version="1",
    )
    return Row.answered(Path(path), prediction)


def summarise(*rows: Row, labels_from_folders: bool = False) -> Summary:
    """Count rows."""
    summary = Summary(labels_from_folders)
    for row in rows:
        summary.add(row)
    return summary


def cells(summary: Summary) -> list[list[str]]:
    """Return the table as a terminal shows it, one list of cells for each class."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(summary.table())
    lines = capture.get().splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_table_counts_by_class() -> None:
    """Each class has a row, in the model's order, with its count and mean probability."""
    table = cells(summarise(answered("a", 0, 0.5), answered("b", 0, 1.0), answered("c", 2)))
    assert table == [["Coat", "2", "0.750"], ["Bag", "0", ""], ["[bold]Shirt", "1", "0.750"]]


def test_table_shows_what_was_recognised() -> None:
    """With labels, a class's row has the counts of its true and its recognised images."""
    rows = answered("Coat/a", 0), answered("Coat/b", 1), answered("1/c", 1), answered("else/d", 0)
    table = cells(summarise(*rows, labels_from_folders=True))
    assert [row[3:] for row in table] == [["2", "1"], ["1", "1"], ["0", "0"]]


def test_failures_are_counted_by_title() -> None:
    """The totals come first, then the failures by title, the most frequent first."""
    failed = Row.failed(Path("a"), NoAnswerError("gone"))
    other = Row(path="b", error_title="Too large")
    lines = list(summarise(other, failed, failed, answered("c", 1)).lines())
    assert lines == ["4 images: 1 classified, 3 failed", "  2 x No answer", "  1 x Too large"]


def test_accuracy_counts_labelled_answers() -> None:
    """Accuracy counts only answers for images in folders named after a class or its id."""
    rows = answered("Coat/a", 0), answered("0/b", 1), answered("Bag/c", 1), answered("else/d", 1)
    lines = list(summarise(*rows, labels_from_folders=True).lines())
    assert lines[1:] == ["accuracy: 66.67% (2 of 3 labelled and classified images)"]
    assert len(list(summarise(*rows).lines())) == 1
    (_, unknown) = summarise(answered("else/d", 1), labels_from_folders=True).lines()
    assert unknown.startswith("accuracy: unknown")
