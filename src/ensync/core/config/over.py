"""A study over one setting: the contestants are its values, as `study.over` lists them."""

from typing import NamedTuple

from ensync.core.config.values import safe_name, split_values, toml_value, value_text
from ensync.core.errors import EnsyncError


class Over(NamedTuple):
    """A setting and its values.

    setting: its whole name, "communication.every"; values, texts: by the name of the contestant,
    the value, and how it was written.
    """

    setting: str
    values: dict[str, object]
    texts: dict[str, str]

    @property
    def key(self) -> str:
        """The setting without its section: "every"."""
        return self.setting.partition(".")[2]

    def label(self, name: str) -> str:
        """Return a contestant's name on a page: "every = 16"."""
        return f"{self.key} = {value_text(self.values[name])}"

    def override(self, name: str) -> str:
        """Return what makes a contestant of a job: "communication.every=16"."""
        return f"{self.setting}={self.texts[name]}"


def over_of(text: str) -> Over:
    """Return what "section.key=V1,V2,..." says. Errors: EnsyncError where it is no such list, or
    has a value twice.
    """
    setting, _equals, listed = text.partition("=")
    section, _dot, key = setting.strip().partition(".")
    given = split_values(listed)
    if not (section and key) or "." in key or "" in given or not text.isprintable():
        raise EnsyncError(
            f"study.over = {text!r}",
            "section.key=value,value,...",
            'write for example over = "optimizer.learning_rate=0.05,0.1,0.2"',
        )
    found = Over(f"{section}.{key}", {}, {})
    for one in given:
        value = toml_value(one)
        name = f"{key}_{safe_name(value_text(value))}"
        if name in found.values:
            raise EnsyncError(
                f"study.over = {text!r}, which has {one} twice",
                "values that differ",
                "leave one of them out",
            )
        found.values[name], found.texts[name] = value, one
    return found
