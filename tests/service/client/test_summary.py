"""The summary of a run."""

from dataclasses import replace
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
        summary.add(row.labelled() if labels_from_folders else row)
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


def test_images_that_look_like_no_class_are_counted() -> None:
    """The summary counts them; a model that does not measure it, or knows all images, adds none."""
    unknown = replace(answered("a", 0), in_distribution=False)
    known = replace(answered("b", 0), in_distribution=True)
    totals = list(summarise(unknown, known, answered("c", 1)).lines())
    assert totals == ["3 images: 3 classified, 0 failed", "look like none of the classes: 1 of 3"]
    assert len(list(summarise(known, answered("c", 1)).lines())) == 1


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
    assert lines[1:] == [
        "accuracy: 66.67% (2 of 3 labelled and classified images; without a label: 1)"
    ]
    (_, all_labelled) = summarise(answered("Bag/c", 1), labels_from_folders=True).lines()
    assert all_labelled == "accuracy: 100.00% (1 of 1 labelled and classified images)"
    assert len(list(summarise(*rows).lines())) == 1
    (_, unknown) = summarise(answered("else/d", 1), labels_from_folders=True).lines()
    assert unknown.startswith("accuracy: unknown")


def test_folders_that_are_no_class_are_named() -> None:
    """Images without a label are counted and their folders named, the largest first."""
    rows = answered("Coat/a", 0), answered("x/a", 1), answered("y/a", 1), answered("y/b", 1)
    (warning,) = summarise(*rows, labels_from_folders=True).warnings()
    assert "3 classified images" in warning
    assert "y (2), x (1)" in warning
    assert "Coat, Bag, [bold]Shirt" in warning
    assert list(summarise(*rows).warnings()) == []
    assert list(summarise(answered("coats/a", 0), labels_from_folders=True).warnings()) == []


def test_many_folders_are_not_all_named() -> None:
    """With many folders, the warning names some and counts the rest."""
    rows = [answered(f"{number}x/a", 1) for number in range(50)]
    (warning,) = summarise(*rows, labels_from_folders=True).warnings()
    assert "50 classified images" in warning
    assert "and 30 more" in warning


def test_passed_over_files_are_a_line_before_the_accuracy() -> None:
    """The line about files that were passed over follows the totals."""
    lines = list(summarise(answered("Coat/a", 0), labels_from_folders=True).lines("2 x .heic"))
    assert lines[1] == "2 x .heic"
    assert lines[2].startswith("accuracy")
