"""The same tables as LaTeX and as CSV."""

import csv
import io
import re

from ferbench.report.cells import Grid, Section, numeric
from ferbench.text import spreadsheet

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "▸": r"$\triangleright$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "−": "$-$",
    "λ": r"$\lambda$",
    "≤": r"$\leq$",
}


def latex(sections: list[Section]) -> str:
    """Return a document for pdflatex: one booktabs table for each grid, with caption and label.

    Wide tables are shrunk to the width of the text.
    """
    parts = [
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n"
        "\\usepackage[margin=2cm]{geometry}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    ]
    for place, (title, lines, tables) in enumerate(sections, 1):
        parts.append(f"\\section*{{{escaped(title)}}}\n\\begin{{itemize}}")
        parts += [f"\\item {escaped(line)}" for line in lines]
        parts.append("\\end{itemize}\n")
        parts += [_table(grid, f"tab:{place}-{number}") for number, grid in enumerate(tables, 1)]
    return "\n".join([*parts, "\\end{document}\n"])


def _table(grid: Grid, label: str) -> str:
    caption, header, rows = grid
    align = "l" + "".join("r" if numeric(rows, i) else "l" for i in range(1, len(header)))
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (header, *rows)]
    return "\n".join(
        [
            "\\begin{table}[htbp]\n\\centering",
            f"\\caption{{{escaped(caption)}}}\\label{{{label}}}",
            # \sbox measures the table: one that fits keeps its size
            f"\\sbox0{{\\begin{{tabular}}{{{align}}}",
            "\\toprule",
            lines[0],
            "\\midrule",
            *lines[1:],
            "\\bottomrule",
            "\\end{tabular}}",
            "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi",
            "\\end{table}\n",
        ]
    )


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda found: _SPECIAL[found.group()], text.strip("`"))


def long_csv(sections: list[Section]) -> str:
    """Return all tables as one: a row for each cell, with the columns report, table, row, name, column, value.

    ``row`` is the place in the table, from 1; ``name`` is its first cell. A cell that a spreadsheet would take for a
    formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["report", "table", "row", "name", "column", "value"])
    for title, _, tables in sections:
        for caption, header, rows in tables:
            for number, row in enumerate(rows, 1):
                for column, value in zip(header[1:], row[1:], strict=True):
                    cells = map(spreadsheet, (title, caption, str(number), row[0], column, value))
                    writer.writerow(cells)
    return text.getvalue()
