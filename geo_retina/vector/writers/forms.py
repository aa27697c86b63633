"""Attribute forms in QGIS's styles: drop-downs, defaults, and what must be filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_CATEGORIES = "Symbology|Labeling|Fields|Forms|AttributeTable"


@dataclass(frozen=True, kw_only=True)
class FormField:
    """How one column is edited.

    Attributes:
        choices: a drop-down of these values; none for a plain field.
        is_open: other values than the choices may be typed.
        default: expression of QGIS for a new feature; none where it is left empty.
        is_required: warn where it is empty.
        is_locked: shown, not edited.
        is_hidden: not shown.
        is_long: a text of several lines.
    """

    choices: Sequence[str] = ()
    is_open: bool = False
    default: str = ""
    is_required: bool = False
    is_locked: bool = False
    is_hidden: bool = False
    is_long: bool = False


def with_form(qml: str, fields: Mapping[str, FormField], *, sort: str, title: str) -> str:
    """Add an attribute form to a style.

    Args:
        qml: a style, as ``class_style`` makes it.
        fields: by column, in the order of the form.
        sort: expression by which the attribute table is sorted.
        title: expression that names a feature in lists.

    Returns:
        QML.
    """
    root = ET.fromstring(qml)
    root.set("styleCategories", _CATEGORIES)
    widgets = ET.SubElement(root, "fieldConfiguration")
    defaults = ET.SubElement(root, "defaults")
    constraints = ET.SubElement(root, "constraints")
    editable = ET.SubElement(root, "editable")
    for name, field in fields.items():
        _add_widget(ET.SubElement(widgets, "field", name=name, configurationFlags="None"), field)
        ET.SubElement(defaults, "default", field=name, expression=field.default, applyOnUpdate="0")
        about = {"field": name, "constraints": str(int(field.is_required))}
        about |= {"notnull_strength": "2" if field.is_required else "0"}
        about |= {"unique_strength": "0", "exp_strength": "0"}
        ET.SubElement(constraints, "constraint", about)
        ET.SubElement(editable, "field", name=name, editable=str(int(not field.is_locked)))
    ET.SubElement(root, "editorlayout").text = "generatedlayout"
    ET.SubElement(root, "featformsuppress").text = "0"
    ET.SubElement(root, "previewExpression").text = title
    table = ET.SubElement(root, "attributetableconfig", sortExpression=sort, sortOrder="0")
    columns = ET.SubElement(table, "columns")
    for name, field in fields.items():
        hidden = str(int(field.is_hidden))
        ET.SubElement(columns, "column", name=name, type="field", hidden=hidden, width="-1")
    ET.indent(root, " ")
    return _HEAD + ET.tostring(root, encoding="unicode") + "\n"


def _add_widget(parent: ET.Element, field: FormField) -> None:
    kind = "TextEdit"
    if field.is_hidden:
        kind = "Hidden"
    elif field.choices:
        kind = "UniqueValues" if field.is_open else "ValueMap"
    config = ET.SubElement(ET.SubElement(parent, "editWidget", type=kind), "config")
    options = ET.SubElement(config, "Option", type="Map")
    if kind == "ValueMap":
        choices = ET.SubElement(options, "Option", type="List", name="map")
        for value in field.choices:
            choice = ET.SubElement(choices, "Option", type="Map")
            ET.SubElement(choice, "Option", type="QString", name=value, value=value)
    elif kind == "UniqueValues":
        ET.SubElement(options, "Option", type="bool", name="Editable", value="true")
    elif field.is_long:
        ET.SubElement(options, "Option", type="bool", name="IsMultiline", value="true")
