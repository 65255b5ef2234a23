"""How the models of the contract are written down: camelCase in YAML and JSON, snake_case in Python.

Every string, list and map has a bound: the API server counts what a rule may cost at most (see `crd`).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A part of the contract. Unknown fields are refused, so that a typo is an error and not a default."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


Name = Annotated[str, Field(max_length=253)]
"""Of a Kubernetes object."""
