"""Schema and reference page: every setting with its type, default and meaning."""

import json

import pytest

from align.config.branches import branches, root_of
from align.config.schema import json_schema, markdown
from align.config.sections import field_types, item_type, sections_of


def test_schema_carries_meaning_ranges_and_defaults(toy):
    schema = json_schema(toy.Run)
    assert schema["properties"]["steps"] == {
        "default": 10,
        "description": "How long.",
        "exclusiveMinimum": 0,
        "title": "Steps",
        "type": "integer",
    }
    assert schema["properties"]["sampler"]["default"] == {"kind": "wild", "draws": 4, "noise_level": 0.5}
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_reference_page(toy):
    page = markdown(toy.Run)
    assert "| `steps` | whole number > 0 | `10` | How long. |" in page
    assert '| `precision` | `no`, `bf16` | `"no"` | Number format. |' in page
    assert "| `betas` | list of 2 numbers | `[0.9, 0.999]` | Two numbers. |" in page
    assert '| `targets` | `attention` or list of texts | `"attention"` | A word or a list. |' in page
    assert "| `sampler` | section of kind `calm`, `wild` | `wild` | One of two. |" in page
    assert "| `average` | section or null | its defaults | May be null. |" in page
    assert "### `sampler`, `kind: wild`" in page
    assert "## `items.N`" in page
    assert "| `function` | text | required | What it is. |" in page


def sections(root):
    yield root
    for annotation in field_types(root).values():
        for section in sections_of(item_type(annotation) or annotation):
            yield from sections(section)


@pytest.mark.parametrize("branch", list(branches()))
def test_every_setting_of_every_branch_is_explained(branch):
    """A field without a docstring has no help text, no description and an empty line in the reference page."""
    schema = json_schema(root_of(branch))
    schemas = {root_of(branch).__name__: schema, **schema["$defs"]}
    for section in sections(root_of(branch)):
        described = schemas[section.__name__]
        assert described.get("description"), section
        for name, field in described["properties"].items():
            targets = [part["$ref"].rpartition("/")[2] for part in [field, *field.get("anyOf", [])] if "$ref" in part]
            meaning = field.get("description") or " ".join(schemas[target].get("description", "") for target in targets)
            assert meaning.strip().endswith("."), f"{section.__name__}.{name}"
    assert markdown(root_of(branch)).count("|") > 400


def test_inherited_settings_keep_their_help_text():
    """`path` is a field of the class that pairs and single pictures share; both say what it is."""
    schemas = json_schema(root_of("diffusion"))["$defs"]
    texts = {schemas[name]["properties"]["path"]["description"] for name in ("PairsConfig", "ImagesConfig")}
    assert len(texts) == 1
    assert "save_to_disk" in texts.pop()
