"""Documents held against the schemas that are published for them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import fastjsonschema

from patchforge import schemas


@cache
def _judge(name: str) -> Callable[[Any], Any]:
    judge: Callable[[Any], Any] = fastjsonschema.compile(schemas.schema(name))
    return judge


def fitting(document: Any) -> dict[str, Any]:
    """The document, which says what it is; AssertionError where it is not as its schema has it."""
    name = "matrix" if "include" in document else str(document["schema"]).split("/")[1]
    try:
        _judge(name)(document)
    except fastjsonschema.JsonSchemaException as error:
        raise AssertionError(f"{name}: {error}") from None
    return dict(document)
