"""Formulas of the pages: the plain text of a docstring as LaTeX, and LaTeX as MathML while the site is built.

A docstring has its formula as it would be typed into code or mail, so that `help()` reads well, one equation a line:

    Formula:
        L = 1 - IoU + r^2/c^2 + a v
        v = 4/pi^2 (atan(w/h) - atan(w'/h'))^2

`latex` turns that into the LaTeX of a `math` block, which the repository's host renders, and `fence` the block into
MathML for the site. CONTRIBUTING.md says what may stand in a formula.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "pi", "rho", "sigma", "tau"}
FUNCTIONS = {"exp", "log", "ln", "sin", "cos", "min", "max"}
OPERATORS = {"atan": r"\arctan", "sigmoid": r"\sigma", "sum": r"\sum", "mean": r"\operatorname{mean}"}
NAMED = {"clamp", "tr", "softplus", "KL", "smooth_l1", "area", "loss"}  # called with brackets
RELATIONS = {"=": "=", "<": "<", ">": ">", "<=": r"\le", ">=": r"\ge", "<-": r"\leftarrow", "in": r"\in"}
TOKEN = re.compile(r"\s*(<-|<=|>=|\d+(?:\.\d+)?|[A-Za-z][A-Za-z0-9]*'?(?:_[A-Za-z0-9]+)?|\S)")
WORDS = {"if": r"\text{if }", "otherwise": r"\text{otherwise}"}


def latex(formula: str) -> str:
    """Return equations in plain text, one a line, as LaTeX aligned at their first relation.

    Raises:
        ValueError: on a formula that cannot be read.
    """
    lines = [_Parser(line).equation() for line in re.sub(r"\n[ \t]+", " ", formula.strip()).splitlines()]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    """Return a `math` block as MathML, for `pymdownx.superfences`."""
    return f'<div class="{css_class}">{convert(source.replace("aligned", "align*"), display="block")}</div>'


class _Parser:
    """Recursive descent over a line: relations, sums, products, fractions, powers."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.tokens = TOKEN.findall(line)
        self.at = 0

    def equation(self) -> str:
        left = self.sum()
        if self.next not in RELATIONS:
            self.end()
            return f"& {left}"
        relation = RELATIONS[self.take()]
        right = self.relation()
        if self.next in WORDS:
            right = self.cases(right)
        self.end()
        return f"{left} &{relation} {right}"

    def cases(self, value: str) -> str:
        """`1 if t <= m, e^(1-t) otherwise`."""
        rows = []
        while True:
            word = self.take()
            rows.append(f"{value} & {WORDS[word]}{self.relation() if word == 'if' else ''}")
            if self.next != ",":
                return "\\begin{cases} " + " \\\\ ".join(rows) + " \\end{cases}"
            self.take()
            value = self.sum()
            if self.next not in WORDS:
                raise self.error()

    def relation(self) -> str:
        text = self.sum()
        while self.next in RELATIONS:
            text += f" {RELATIONS[self.take()]} {self.sum()}"
        return text

    def sum(self) -> str:
        text = self.take() if self.next == "-" else ""
        text += self.product()
        while self.next in ("+", "-"):
            text += f" {self.take()} {self.product()}"
        return text

    def product(self) -> str:
        text = self.fraction()
        while self.next and (self.next == "*" or self.starts_factor()):
            if self.next == "*":
                self.take()
                text += r" \cdot"
            text += r"\, " + self.fraction()
        return text

    def fraction(self) -> str:
        above = self.power()
        while self.next == "/":
            self.take()
            above = rf"\frac{{{_bare(above)}}}{{{_bare(self.power())}}}"
        return above

    def power(self) -> str:
        base = self.atom()
        if self.next != "^":
            return base
        self.take()
        minus = self.take() if self.next == "-" else ""
        return f"{{{base}}}^{{{minus}{_bare(self.atom())}}}"

    def atom(self) -> str:
        token = self.take()
        if token == "(":
            inside = self.relation()
            while self.next == ",":
                self.take()
                inside += f",\\, {self.relation()}"
            self.take(")")
            return rf"\left({inside}\right)"
        if token == "|":
            inside = self.sum()
            self.take("|")
            return rf"\left|{inside}\right|"
        if token[0].isdigit():
            return token
        if not token[0].isalpha() or token in WORDS:
            raise self.error()
        if self.next == "(" and token == "sqrt":
            return rf"\sqrt{{{_bare(self.atom())}}}"
        if self.next in ("(", "^") and token in FUNCTIONS | OPERATORS.keys() | NAMED:
            return self.call(token)
        return _name(token)

    def call(self, name: str) -> str:
        text = OPERATORS.get(name) or (f"\\{name}" if name in FUNCTIONS else _upright(name))
        if self.next == "^":
            self.take()
            text += f"^{{{_bare(self.atom())}}}"
        return f"{text} {self.atom()}"

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def starts_factor(self) -> bool:
        return (self.next[0].isalnum() or self.next == "(" or (self.next == "|" and not self.inside_bars())) and (
            self.next not in WORDS and self.next not in RELATIONS
        )

    def inside_bars(self) -> bool:
        return self.tokens[: self.at].count("|") % 2 == 1

    def take(self, wanted: str = "") -> str:
        token = self.next
        if not token or (wanted and token != wanted):
            raise self.error()
        self.at += 1
        return token

    def end(self) -> None:
        if self.next:
            raise self.error()

    def error(self) -> ValueError:
        return ValueError(f"the formula '{self.line}' cannot be read at '{self.next or 'its end'}'")


def _bare(text: str) -> str:
    """Return an atom without the brackets around all of it: a fraction's line and a power's height replace them."""
    inner = re.fullmatch(r"\\left\((.*)\\right\)", text, flags=re.DOTALL)
    if inner is None or ",\\," in inner[1]:
        return text
    depth = 0
    for sign in re.findall(r"\\left\(|\\right\)", inner[1]):
        depth += 1 if sign == r"\left(" else -1
        if depth < 0:
            return text
    return inner[1]


def _name(token: str) -> str:
    """Return a variable: `p_t`, `w'`, `gamma`, `IoU`."""
    stem, _, index = token.partition("_")
    prime = "'" if stem.endswith("'") else ""
    stem = stem.removesuffix("'")
    text = f"\\{stem}" if stem in GREEK else stem if len(stem) == 1 else _upright(stem)
    return text + (f"_{{{index if len(index) == 1 else _upright(index)}}}" if index else "") + prime


def _upright(word: str) -> str:
    return rf"\mathrm{{{word.replace('_', ' ')}}}"
