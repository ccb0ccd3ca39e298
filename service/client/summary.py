"""The summary that ends a run: counts by class, failures, accuracy."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rich.markup import escape
from rich.table import Column, Table

from service.client.rows import Row

MAX_NAMED_FOLDERS = 20


@dataclass
class Summary:
    """The counts of a run's rows.

    With ``labels_from_folders``, the class that an image's folder is named after is its true class.
    """

    labels_from_folders: bool = False
    classes: dict[str, None] = field(default_factory=dict)
    """The keys are the model's classes, in its order."""
    probabilities: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The probabilities of the answers, by predicted class."""
    hits: defaultdict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Whether each labelled image was recognised, by true class."""
    unlike_all: int = 0
    """The number of answers whose image looks like none of the classes."""
    failed: Counter[str] = field(default_factory=Counter)
    """The number of errors, by title."""
    unlabelled: Counter[str] = field(default_factory=Counter)
    """The number of classified images without a true class, by folder."""

    def add(self, row: Row) -> None:
        """Count one row."""
        if row.class_name is None or row.probability is None:
            self.failed[row.error_title or "Unknown error"] += 1
            return
        names = list(row.probabilities or {})
        self.classes |= dict.fromkeys(names)
        self.probabilities[row.class_name].append(row.probability)
        self.unlike_all += row.in_distribution is False
        if not self.labels_from_folders:
            return
        if row.label is None:
            self.unlabelled[Path(row.path).parent.name or "."] += 1
        else:
            self.hits[row.label].append(row.label == row.class_name)

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

    def lines(self, passed_over: str = "") -> Iterator[str]:
        """Yield the totals, failures by title, doubtful answers, ``passed_over`` and accuracy."""
        answered, failed = sum(map(len, self.probabilities.values())), self.failed.total()
        yield f"{answered + failed} images: {answered} classified, {failed} failed"
        yield from (f"  {count} x {title}" for title, count in self.failed.most_common())
        if self.unlike_all:
            yield f"look like none of the classes: {self.unlike_all} of {answered}"
        yield from filter(None, [passed_over])
        hits = [hit for hits in self.hits.values() for hit in hits]
        if hits:
            share = f"{sum(hits)} of {len(hits)} labelled and classified images"
            left_out = f"; without a label: {count}" if (count := self.unlabelled.total()) else ""
            yield f"accuracy: {fmean(hits):.2%} ({share}{left_out})"
        elif self.labels_from_folders:
            yield "accuracy: unknown, no classified image is in a folder named after a class or id"

    def warnings(self) -> Iterator[str]:
        """Yield a line if images have no true class. The accuracy does not count them."""
        if not self.unlabelled:
            return
        folders = self.unlabelled.most_common()
        named = ", ".join(f"{name} ({count})" for name, count in folders[:MAX_NAMED_FOLDERS])
        rest = len(folders) - MAX_NAMED_FOLDERS
        more = f" and {rest} more" if rest > 0 else ""
        yield (
            f"warning: {self.unlabelled.total()} classified images are in folders that are named "
            f"after no class, and do not count in the accuracy: {named}{more}. "
            f"The classes are {', '.join(self.classes)}"
        )
