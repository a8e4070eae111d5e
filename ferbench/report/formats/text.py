"""Sections of typed tables as text: console (rich), markdown, LaTeX, CSV; data as JSON; findings of a check."""

import csv as csv_module
import json as json_module
import os
import sys
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from ferbench.files import write_text
from ferbench.report.formats import renderer
from ferbench.report.table import OURS, Code, Section, Table, parts
from ferbench.runs.facts import HeldOut
from ferbench.text import markdown as marked
from ferbench.text import spreadsheet

if TYPE_CHECKING:
    from ferbench.report.check import Finding

WIDE = 160  # columns of a console that is a file or a pipe: nothing is cut off
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
    | {"▸": r"$\triangleright$", "→": r"$\rightarrow$", "×": r"$\times$", "−": "$-$", "λ": r"$\lambda$", "≤": r"$\leq$"}
)


def write(sections: list[Section], data: Any, format: str, out: Path | None) -> None:
    """Print sections, or write them to ``out``. data : what they show, for JSON."""
    if format == "console":
        console(sections)
    else:
        put(json(data) if format == "json" else renderer(format)(sections), out)


def put(text: str, out: Path | None) -> None:
    """Print a text, or write it to ``out``."""
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def console(sections: list[Section], wide: int = WIDE) -> None:
    """Print sections on the terminal. wide : columns where the output is no terminal."""
    from rich.console import Console
    from rich.text import Text

    screen = Console(width=None if sys.stdout.isatty() else wide)
    for section in sections:
        if section.title:
            screen.print(Text(section.title, style="bold"))
        for line in section.lines:
            screen.print(Text(line, style="dim"))
        for table in section.tables:
            if table.caption:
                screen.print(Text(f"\n{table.caption}", style="italic"))
            console_table(screen, table)


def console_table(screen: Any, table: Table) -> None:
    """Print a table; our own rows are bold."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rows = table.texts()
    styles = ["bold" if row[0].startswith(OURS) else "" for row in rows]
    fitting = _aligned([table.header, *rows], table.right, screen.width)
    if fitting is not None:
        lines = (Text(line, style=style) for line, style in zip(fitting, ["bold", *styles], strict=True))
        screen.print(Text("\n", no_wrap=True).join(lines))
        return
    shown = RichTable(box=None, pad_edge=False)
    for column, right in zip(table.columns, table.right, strict=True):
        shown.add_column(
            Text(column.name), justify="right" if right else "left", overflow="fold", no_wrap=column.kind == "key"
        )
    for row, style in zip(rows, styles, strict=True):
        shown.add_row(*(Text(cell, style=style) for cell in row))
    screen.print(shown)


def _aligned(rows: list[list[str]], right: list[bool], width: int) -> list[str] | None:
    """The lines of a table that needs no folding; None where it is wider. For hundreds of rows, rich takes a second."""
    from rich.cells import cell_len

    sizes = [[cell_len(cell) for cell in row] for row in rows]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > width:
        return None
    lines = []
    for row, lengths in zip(rows, sizes, strict=True):
        padded = []
        for cell, length, widest, end in zip(row, lengths, widths, right, strict=True):
            space = " " * (widest - length)
            padded.append(f"{space}{cell}" if end else f"{cell}{space}")
        lines.append("  ".join(padded).rstrip())
    return lines


def markdown(sections: list[Section]) -> str:
    """Return a GitHub-flavoured document of sections."""
    blocks = []
    for section in sections:
        blocks += [f"# {marked(section.title)}"] if section.title else []
        blocks += ["\n".join(f"- {marked(line)}" for line in section.lines)] if section.lines else []
        blocks += [f"![{marked(title)}]({path})" for title, path in section.pictures]
        blocks += map(markdown_table, section.tables)
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table for GitHub with its caption above it."""
    from tabulate import tabulate

    cells = [
        [marked(f"`{text}`" if isinstance(value, Code) else text, cell=True) for value, text in zip(*row, strict=True)]
        for row in zip(table.rows, table.texts(), strict=True)
    ]
    head = [marked(name, cell=True) for name in table.header]
    align = ["right" if right else "left" for right in table.right]
    text = tabulate(cells, head, "github", colalign=align, disable_numparse=True)
    return f"**{marked(table.caption)}**\n\n{text}" if table.caption else text


def latex(sections: list[Section]) -> str:
    """Return a document for pdflatex: one booktabs table for each table, with caption and label.

    Wide tables are shrunk to the width of the text.
    """
    blocks = [
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n"
        "\\usepackage[margin=2cm]{geometry}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    ]
    for place, section in enumerate(sections, 1):
        if section.title:
            blocks.append(f"\\section*{{{_escaped(section.title)}}}")
        if section.lines:
            items = [f"\\item {_escaped(line)}" for line in section.lines]
            blocks += ["\\begin{itemize}", *items, "\\end{itemize}\n"]
        blocks += [_latex_table(table, f"tab:{place}-{number}") for number, table in enumerate(section.tables, 1)]
    return "\n".join([*blocks, "\\end{document}\n"])


def _latex_table(table: Table, label: str) -> str:
    align = "".join("r" if right else "l" for right in table.right)
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (table.header, *table.texts())]
    # \sbox measures the table: one that fits keeps its size
    return f"""\\begin{{table}}[htbp]
\\centering
\\caption{{{_escaped(table.caption)}}}\\label{{{label}}}
\\sbox0{{\\begin{{tabular}}{{{align}}}
\\toprule
{lines[0]}
\\midrule
{chr(10).join(lines[1:])}
\\bottomrule
\\end{{tabular}}}}
\\ifdim\\wd0>\\linewidth\\resizebox{{\\linewidth}}{{!}}{{\\usebox0}}\\else\\usebox0\\fi
\\end{{table}}
"""


def _escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return text.translate(_LATEX)


def csv(sections: list[Section]) -> str:
    """Return all tables as one, with a row for each number: report, table, row, name, column, part, unit, value.

    ``row`` is the place in the table, from 1; ``name`` is its first cell. ``part`` is empty for the value of a cell
    itself, else what it is of it: ``low`` and ``high`` of an interval, a ``standard deviation``, a ``note``. Numbers
    are unformatted, with ten digits. A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(["report", "table", "row", "name", "column", "part", "unit", "value"])
    for section in sections:
        for table in section.tables:
            for number, row in enumerate(table.rows, 1):
                for column, value in zip(table.columns[1:], row[1:], strict=True):
                    for part, content in parts(value):
                        cells = [section.title, table.caption, str(number), row[0], column.name, part]
                        plain = content if isinstance(content, str) else f"{content:.10g}"
                        unit = "" if isinstance(content, str) else column.unit
                        shown = spreadsheet(plain) if isinstance(content, str) else plain
                        writer.writerow([*map(spreadsheet, cells), unit, shown])
    return text.getvalue()


def rows_csv(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Return dictionaries as a table of their own, a column for each field."""
    text = StringIO()
    writer = csv_module.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: spreadsheet(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    )
    return text.getvalue()


def json(data: Any) -> str:
    """Return one JSON document. Arrays are lists; a figure that does not exist is null."""
    return json_module.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return data of dataclasses as dictionaries and lists. The metrics of something tested stand among its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        content: dict[str, Any] = {}
        for field in fields(value):
            part = plain(getattr(value, field.name))
            content |= part if field.name == "metrics" else {field.name: part}
        return content
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, HeldOut):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def junit(findings: "list[Finding]") -> str:
    """Return the findings of a check as a JUnit test suite."""
    suite = ElementTree.Element(
        "testsuite",
        name="ferbench check",
        tests=str(len(findings)),
        failures=str(sum(finding.held is False for finding in findings)),
        skipped=str(sum(finding.held is None for finding in findings)),
    )
    for finding in findings:
        case = ElementTree.SubElement(suite, "testcase", classname="ferbench.check", name=finding.baseline)
        if finding.held:
            ElementTree.SubElement(case, "system-out").text = finding.line
        else:
            ElementTree.SubElement(case, "skipped" if finding.held is None else "failure", message=finding.line)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def github(findings: "list[Finding]") -> str:
    """Return the findings of a check as annotations of GitHub Actions; its step's summary gets a table of them."""
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        rows = ["| | accepted | now | |", "|---|---|---|---|"]
        for finding in findings:
            name, line = marked(finding.name, cell=True), marked(finding.line, cell=True)
            now = "–" if finding.found is None else f"{finding.found:.2%}"
            rows.append(f"| {name} | {finding.accepted:.2%} | {now} | {line} |")
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write("\n".join(rows) + "\n")
    # GitHub decodes percent signs: %0A in a name would end the line.
    lines = [(("notice", "error")[finding.held is False], finding.line.replace("%", "%25")) for finding in findings]
    return "".join(f"::{kind} title=ferbench check::{line}\n" for kind, line in lines)
