"""The summary that ends a run: counts by class, failures, accuracy."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rich.markup import escape
from rich.table import Column, Table

from service.client.rows import Row


@dataclass
class Summary:
    """The counts of a run's rows.

    With ``labels_from_folders``, an image's true class is its folder's name: a class name or id.
    """

    labels_from_folders: bool = False
    classes: dict[str, None] = field(default_factory=dict)
    """The keys are the model's classes, in its order."""
    probabilities: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The probabilities of the answers, by predicted class."""
    hits: defaultdict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Whether each labelled image was recognised, by true class."""
    failed: Counter[str] = field(default_factory=Counter)
    """The number of errors, by title."""

    def add(self, row: Row) -> None:
        """Count one row."""
        if row.class_name is None or row.probability is None:
            self.failed[row.error_title or "Unknown error"] += 1
            return
        names = list(row.probabilities or {})
        self.classes |= dict.fromkeys(names)
        self.probabilities[row.class_name].append(row.probability)
        true_names = {str(class_id): name for class_id, name in enumerate(names)}
        true_names |= {name: name for name in names}
        true_name = true_names.get(Path(row.path).parent.name)
        if self.labels_from_folders and true_name is not None:
            self.hits[true_name].append(true_name == row.class_name)

    def table(self) -> Table:
        """Return a table with one row for each class."""
        headings = ["predicted", "mean probability"]
        headings += ["true", "recognised"] if self.labels_from_folders else []
        table = Table("class", *(Column(heading, justify="right") for heading in headings))
        for name in self.classes:
            probabilities, hits = self.probabilities[name], self.hits[name]
            labels = [str(len(hits)), str(sum(hits))] if self.labels_from_folders else []
            mean = f"{fmean(probabilities):.3f}" if probabilities else ""
            table.add_row(escape(name), str(len(probabilities)), mean, *labels)
        return table

    def lines(self) -> Iterator[str]:
        """Yield the totals, the failures by title and, with labels, the accuracy."""
        answered, failed = sum(map(len, self.probabilities.values())), self.failed.total()
        yield f"{answered + failed} images: {answered} classified, {failed} failed"
        yield from (f"  {count} x {title}" for title, count in self.failed.most_common())
        hits = [hit for hits in self.hits.values() for hit in hits]
        if hits:
            share = f"{sum(hits)} of {len(hits)} labelled and classified images"
            yield f"accuracy: {fmean(hits):.2%} ({share})"
        elif self.labels_from_folders:
            yield "accuracy: unknown, no classified image is in a folder named after a class or id"
