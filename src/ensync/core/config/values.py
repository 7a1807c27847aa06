"""Values of settings as the command line has them: "0.1,0.2", "[64,32],[32]", "never"."""

import hashlib
import json
import re
import tomllib
from typing import Any

from ensync.core.errors import EnsyncError

PLAIN = re.compile(
    r"[A-Za-z0-9._+-]{1,60}"
)  # values that are part of a directory's name as they are
LONGEST_NAME = 40  # characters of others, before the digest that tells them apart
BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}


def toml_value(text: str) -> Any:
    """Return a value as TOML has it; what is no TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def value_text(value: object) -> str:
    """Return a value in one spelling, whichever was given: "0.001" of 1e-3, "never" of "never"."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def split_values(text: str) -> list[str]:
    """Return the values of "V1,V2,...": commas within brackets and quotes, as TOML has them, belong
    to a value.

    Errors: EnsyncError when a bracket or quote is not closed.
    """
    values, depth, quote, escaped = [""], 0, "", False
    for character in text:
        if not quote:
            depth += BRACKETS.get(character, 0)
        if character == "," and not quote and depth == 0:
            values.append("")
            continue
        values[-1] += character
        if character in "\"'" and not escaped and quote in ("", character):
            quote = "" if quote else character
        escaped = character == "\\" and quote == '"' and not escaped
    if quote or depth:
        raise EnsyncError(
            f"--over ...={text}",
            "values with their brackets and quotes closed",
            "write for example --over 'network.hidden=[64,32],[32]'",
        )
    return [value.strip() for value in values]


def safe_name(text: str) -> str:
    """Return a part of a file's name for a value: as it is, or what letters and digits it has,
    and a digest.
    """
    if PLAIN.fullmatch(text):
        return text
    letters = re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("_")[:LONGEST_NAME]
    return f"{letters or 'value'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
