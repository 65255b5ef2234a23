"""From pydantic's JSON schema to the structural OpenAPI v3 schema that a CustomResourceDefinition needs.

The rules of a structural schema are those of Kubernetes' page "Extend the Kubernetes API with
CustomResourceDefinitions": no `$ref`, no `anyOf` but for int-or-string, `additionalProperties` never beside
`properties`, `exclusiveMinimum` a flag beside `minimum`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from swarm_api.crd.rules import Rule

Schema = dict[str, Any]

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
LIST_TYPE: Final = "x-kubernetes-list-type"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
RULES: Final = "x-kubernetes-validations"

_KEPT: Final = (
    *("description", "type", "format", "enum", "default", "pattern"),
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "required", "properties", "items", "additionalProperties"),
)
"""What a structural schema has, in the order in which it is written."""
_DROPPED: Final = {"title", "$defs"}
_INT32: Final = 2**31 - 1


def structural(model: type[BaseModel], rules: Mapping[str, Sequence[Rule]], *, defaults: bool = True) -> Schema:
    """The schema of a model.

    Args:
        model: fields with an alias appear under it.
        rules: by the name of a model, or of a model and its field as in a manifest, such as `Sync.link`.
        defaults: whether the API server is to fill in what is left out.

    Raises:
        ValueError: the model holds itself, or something that no structural schema can say; the message names it.
    """
    document = model.model_json_schema(by_alias=True)
    return _Converter(document.get("$defs", {}), rules, defaults).named(document, model.__name__)


class _Converter:
    def __init__(self, definitions: Mapping[str, Schema], rules: Mapping[str, Sequence[Rule]], defaults: bool) -> None:
        self._definitions = definitions
        self._rules = rules
        self._defaults = defaults
        self._within: list[str] = []

    def named(self, node: Schema, name: str) -> Schema:
        """The schema of a model or of a field, with its rules."""
        schema = self.convert(node, name)
        found = [rule.schema() for rule in self._rules.get(name, ())]
        return {**schema, RULES: [*schema.get(RULES, []), *found]} if found else schema

    def convert(self, node: Schema, name: str) -> Schema:
        """One schema; `name` is the model's, or the model's and the field's."""
        if "$ref" in node:
            return self._referred(node)
        if "anyOf" in node:
            return self._union(node, name)
        result: Schema = {}
        for key, value in node.items():
            match key:
                case "properties":
                    fields = {field: self.named(schema, f"{name}.{field}") for field, schema in value.items()}
                    result |= {"properties": fields} if fields else {}
                case "items":
                    result["items"] = self.convert(value, name)
                case "additionalProperties" if isinstance(value, dict):
                    result["additionalProperties"] = self.convert(value, name)
                case "additionalProperties":
                    result |= {PRESERVE: True} if value else {}
                case "exclusiveMinimum" | "exclusiveMaximum":
                    result |= {key.removeprefix("exclusive").lower(): value, key: True}
                case "const":
                    result["enum"] = [value]
                case "default" if not self._defaults or value is None:
                    pass
                case _ if key in _KEPT or key.startswith("x-kubernetes-"):  # after those above, which need more
                    result[key] = value
                case _ if key not in _DROPPED:
                    raise ValueError(f"{name}: no structural schema has {key}")
        return _finished(result)

    def _referred(self, node: Schema) -> Schema:
        """The model that is meant, with what its user says of it on top."""
        name = node["$ref"].rpartition("/")[2]
        if name in self._within:
            raise ValueError(f"{name} holds itself, which no structural schema can say")
        self._within.append(name)
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        result = self.named({**self._definitions[name], **siblings}, name)
        self._within.pop()
        return result

    def _union(self, node: Schema, name: str) -> Schema:
        """X or null is X, since the API server takes null as absent; int or str has a form of its own."""
        members = [member for member in node["anyOf"] if member != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        if len(members) == 1:
            return self.convert({**members[0], **rest}, name)
        if [member.get("type") for member in members] != ["integer", "string"]:
            raise ValueError(f"{name}: no structural schema has this union")
        merged = {key: value for member in members for key, value in member.items() if key != "type"}
        result = self.convert({**merged, **rest}, name)
        return {**result, "anyOf": [{"type": "integer"}, {"type": "string"}], INT_OR_STRING: True}


def _finished(schema: Schema) -> Schema:
    """Descriptions on one line, formats of numbers, and defaults without what the fields themselves default to.

    A list is atomic where nothing else is said: who applies it owns all of it.
    """
    match schema.get("type"):
        case "integer":
            small = schema.get("maximum", _INT32 + 1) <= _INT32 and schema.get("minimum", 0) >= -_INT32
            schema["format"] = "int32" if small else "int64"
        case "number":
            schema["format"] = "double"
        case "array":
            schema.setdefault(LIST_TYPE, "atomic")
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if isinstance(schema.get("default"), dict):
        schema["default"] = _difference(schema["default"], schema.get("properties", {}))
    return dict(sorted(schema.items(), key=lambda item: _KEPT.index(item[0]) if item[0] in _KEPT else len(_KEPT)))


def _difference(default: Schema, properties: Mapping[str, Schema]) -> Schema:
    """Of a default object only what differs from the defaults of its fields."""
    return {
        key: value
        for key, value in default.items()
        if value is not None
        and value != properties.get(key, {}).get("default")
        and not (isinstance(value, dict) and not _difference(value, properties.get(key, {}).get("properties", {})))
    }
