"""A table that the terminal and reports print from the same cells."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

from rich.markup import escape
from rich.table import Table as RichTable


class Table:
    """A table as plain strings: a title, column names, rows."""

    def __init__(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title, self.columns, self.rows = title, columns, rows

    def rich(self) -> RichTable:
        """For the terminal."""
        wide = len(self.columns) > 6
        table = RichTable(title=escape(self.title), title_justify="left", pad_edge=not wide)
        for i, column in enumerate(self.columns):
            # Seven columns fit 80 characters if long titles are wrapped and names of models are not.
            lines = wrap(column.replace("_", "_ "), 10) if wide else [column]
            title = "\n".join(line.replace("_ ", "_") for line in lines)
            least = len("transformer") if wide and not i else None
            table.add_column(escape(title), overflow="fold", justify="right" if wide and i else "left", min_width=least)
        for row in self.rows:
            # Intervals go below their values, or seven columns would not fit a terminal.
            cells = [cell.replace(" [", "\n[") for cell in row] if wide else row
            table.add_row(*map(escape, cells))
        return table

    def markdown(self) -> str:
        """For artifacts and reports."""
        lines = [f"**{self.title}**", "", "| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in self.rows)
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])


def interval_text(interval: Mapping[str, float | None], sign: bool = False) -> str:
    """An interval of a summary as `value [low, high]`."""
    form = "+.4f" if sign else ".4f"
    if interval["low"] is None:
        return f"{interval['value']:{form}} [too few documents]"
    return f"{interval['value']:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"
