"""The reference of the custom resource for people: one table for each object of the schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from swarm_api.crd.schema import INT_OR_STRING, PRESERVE, RULES
from swarm_api.names import API_VERSION, KIND, SHORT_NAME

Schema = Mapping[str, Any]

_HEAD: Final = f"""\
<!-- Made by `make generate` from api/swarm_api: change the models there. -->
# {KIND}

Every field of a `{KIND}` of `{API_VERSION}`; those in bold must be set. On a cluster
`kubectl explain {SHORT_NAME}.spec --recursive` shows the same. What conditions, exit codes and metrics say is in
[operations.md](operations.md).

`kubectl get {SHORT_NAME}` shows {{columns}}; `-o wide` adds {{wide}}."""


def reference(definition: Schema) -> str:
    """Markdown for a CustomResourceDefinition."""
    (version,) = definition["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    shown = [column["name"].upper() for column in columns if not column.get("priority")]
    wide = [column["name"].upper() for column in columns if column.get("priority")]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [_HEAD.format(columns=", ".join(shown), wide=", ".join(wide)), *_rules("", schema)]
    known: dict[str, str] = {}
    for name in ("spec", "status"):
        parts += _sections(name, schema["properties"][name], known)
    return "\n".join(parts)


def _sections(path: str, schema: Schema, known: dict[str, str]) -> Iterator[str]:
    """The table of an object, then those of its fields. An object that was shown before is only pointed to."""
    fields = schema.get("properties", {})
    inner = {f"{path}.{name}": found for name, field in fields.items() if (found := _inner(field))}
    for where, found in inner.items():
        known.setdefault(_key(found), where)
    yield f"\n## {path}\n"
    yield schema.get("description", "")
    yield "\n| field | type | default | allowed | meaning |\n|---|---|---|---|---|"
    for name, field in fields.items():
        shown = f"**{name}**" if name in schema.get("required", ()) else name
        kind = _type(field, _link(inner.get(f"{path}.{name}"), known))
        default = f"`{json.dumps(field['default'])}`" if field.get("default") not in (None, {}, []) else ""
        yield f"| {shown} | {kind} | {default} | {_allowed(field)} | {_cell(field.get('description', ''))} |"
    if schema.get(PRESERVE):
        yield "\nAny other field is kept as it is."
    yield from _rules("", schema)
    for name, field in fields.items():
        if f"{path}.{name}" not in inner:
            yield from _rules(name, field)
    for where, found in inner.items():
        if known[_key(found)] == where:
            yield from _sections(where, found, known)


def _inner(schema: Schema) -> Schema | None:
    """The object with fields that this is, or is a list or map of."""
    item = schema.get("items") or schema.get("additionalProperties") or schema
    return item if item.get("properties") else None


def _key(schema: Schema) -> str:
    return json.dumps({key: value for key, value in schema.items() if key not in ("description", "default")})


def _link(schema: Schema | None, known: Mapping[str, str]) -> str:
    if schema is None:
        return "object"
    where = known[_key(schema)]
    return f"[{where.rpartition('.')[2]}](#{where.replace('.', '').lower()})"


def _type(schema: Schema, thing: str) -> str:
    if schema.get(INT_OR_STRING):
        return "integer or string"
    match schema["type"]:
        case "array":
            return f"list of {_type(schema['items'], thing)}"
        case "object" if "additionalProperties" in schema:
            return f"map of {_type(schema['additionalProperties'], thing)}"
        case "object":
            return thing
        case "string" if schema.get("format") == "date-time":
            return "time"
        case kind:
            return str(kind)


def _allowed(schema: Schema) -> str:
    found = [f"`{value}`" for value in schema.get("enum", schema.get("items", {}).get("enum", ()))]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        found.append(f"{'>' if schema.get('exclusiveMinimum') else '≥'} {low:,}")
    if high is not None:
        found.append(f"{'<' if schema.get('exclusiveMaximum') else '≤'} {high:,}")
    if "pattern" in schema:
        found.append(f"`{_cell(schema['pattern'])}`")
    elif schema.get("type") == "string" and schema.get("format") is None and "maxLength" in schema:
        found.append(f"{schema['maxLength']:,} characters")
    if "maxItems" in schema or "maxProperties" in schema:
        found.append(f"{schema.get('maxItems', schema.get('maxProperties')):,} at most")
    return ", ".join(found)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rules(name: str, schema: Schema) -> Iterator[str]:
    rules = [rule["message"] for rule in schema.get(RULES, ())]
    if rules:
        yield f"\nRules{f' of {name}' if name else ''}:\n"
        yield from (f"* {message}" for message in rules)
