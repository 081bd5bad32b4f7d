"""Translation of reports: a `Text` is an English string that keeps the template and the values it was made from."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")


class Text(str):
    """An English text that can be translated: `Text("{n} of {total} runs", n=1, total=3)`.

    A value may be a text too, or a list of them, which is joined by commas.
    """

    __slots__ = ("parts", "separator", "template", "values")

    template: str
    values: Mapping[str, Any]
    separator: str
    parts: tuple[str, ...]

    def __new__(cls, template: str, **values: Any) -> Text:
        """Return the text in English."""
        values = {name: cls.joined(", ", v) if isinstance(v, list | tuple) else v for name, v in values.items()}
        self = super().__new__(cls, template.format(**values))
        self.template, self.values, self.separator, self.parts = template, values, "", ()
        return self

    @classmethod
    def joined(cls, separator: str, parts: Iterable[str]) -> Text:
        """Return texts joined by a separator."""
        parts = tuple(parts)
        self = super().__new__(cls, separator.join(parts))
        self.template, self.values, self.separator, self.parts = "", {}, separator, parts
        return self


def translate(text: Any, language: str) -> Any:
    """Return a text in a language, in English if the catalogue lacks it; other values are returned unchanged."""
    if language == "en" or not isinstance(text, str):
        return text
    words = catalogue(language)
    if not isinstance(text, Text):
        return words.get(text, text)
    if text.parts:
        return words.get(text.separator, text.separator).join(translate(part, language) for part in text.parts)
    values = {name: translate(value, language) for name, value in text.values.items()}
    return words.get(text.template, text.template).format(**values)


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the translation of each template of the reports."""
    import yaml

    path = Path(__file__).with_name("report") / f"{language}.yaml"
    found: dict[str, str] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
