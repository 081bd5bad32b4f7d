"""A formula in a docstring is plain text; the pages show it as maths."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from maths import fence, latex


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("L = |t - p|^beta BCE", r"L &= {\left|t - p\right|}^{\beta}\, \mathrm{BCE}"),
        ("L = (1 - p_t)/(2 s)", r"L &= \frac{1 - p_{t}}{2\, s}"),
        ("L = (a + b)(c - d)", r"L &= \left(a + b\right)\, \left(c - d\right)"),
        ("a = (x) (y)/2", r"a &= \left(x\right)\, \frac{y}{2}"),
        ("v = atan(w'/h')^2", r"v &= {\arctan \left(\frac{w'}{h'}\right)}^{2}"),
        ("x = max(w, w')", r"x &= \max \left(w,\, w'\right)"),
        (
            "w = 1 if t <= m, e^-t otherwise",
            r"w &= \begin{cases} 1 & \text{if }t \le m \\ {e}^{-t} & \text{otherwise} \end{cases}",
        ),
        ("m <- k m", r"m &\leftarrow k\, m"),
    ],
)
def test_plain_text_becomes_latex(text: str, wanted: str) -> None:
    assert latex(text) == f"\\begin{{aligned}}\n{wanted}\n\\end{{aligned}}"


def test_an_equation_may_go_on_in_an_indented_line() -> None:
    assert latex("L = 1 -\n    IoU\na = b") == latex("L = 1 - IoU\na = b")


@pytest.mark.parametrize("text", ["L = (1 - p", "L = 1 +", "L = $p$", "L = |p"])
def test_what_cannot_be_read_is_an_error_with_the_formula(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read at"):
        latex(text)


def test_the_site_has_mathml() -> None:
    html = fence(latex("L = p^2/2\nx = 1"), "math", "maths", {}, None)
    maths = ElementTree.fromstring(html)[0]
    assert maths.tag.endswith("}math")
    assert len(list(maths.iter("{http://www.w3.org/1998/Math/MathML}mtr"))) == 2
    assert "&amp;" not in html
    assert "\\" not in html
