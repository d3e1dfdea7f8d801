# SPDX-License-Identifier: Apache-2.0
"""The ViewDefinition: what the portal asks a tenant for, with which defaults and rules.

Only the portal reads it; the services below it never see it [GUIDE 18273]. Where the guide and the published documents
name a member differently (``RegEx``/``RegExp``, ``Default``/``DefaultValue``, ``Options``/``OptionValues``) both are
read. Numbers 0 in ``MaxLength``, and ``MinRange`` and ``MaxRange`` both 0, mean no limit [PKG: MinLength 1 with
MaxLength 0, port 1433 with the range 0 to 0].
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from harness.package.models import Flag, LongNumber, Many, Model, Text, Texts


def _shown(value: Any) -> str:
    """A scalar as the text that parameters get."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _options(value: Any) -> Any:
    """One object of many pairs is read as the list of them [GUESS: it is what people write first]."""
    return [{key: item} for key, item in value.items()] if isinstance(value, dict) else value


def _option(value: Any) -> Any:
    if isinstance(value, dict) and all(isinstance(item, str | int | float | bool | None) for item in value.values()):
        return {str(key): _shown(item) for key, item in value.items()}
    if isinstance(value, str | int | float):
        return {_shown(value): _shown(value)}
    raise PydanticCustomError("option", "this has to be an object with one pair, the shown text and the value")


Option = Annotated[dict[str, str], BeforeValidator(_option)]
Options = Annotated[Many[Option], BeforeValidator(_options)]


class Messages(Model):
    """What the portal says when a rule is broken."""

    required: Text = Field(default=None, alias="Required")
    length: Text = Field(default=None, alias="Length")
    reg_exp: Text = Field(default=None, alias="RegExp")
    reg_ex: Text = Field(default=None, alias="RegEx")
    range: Text = Field(default=None, alias="Range")


class Validation(Model):
    """Rules for one value."""

    required: Flag = Field(default=None, alias="Required")
    min_length: LongNumber = Field(default=None, alias="MinLength")
    max_length: LongNumber = Field(default=None, alias="MaxLength")
    min_range: LongNumber = Field(default=None, alias="MinRange")
    max_range: LongNumber = Field(default=None, alias="MaxRange")
    reg_exp: Text = Field(default=None, alias="RegExp")
    reg_ex: Text = Field(default=None, alias="RegEx")
    messages: Messages | None = Field(default=None, alias="Messages")

    @property
    def pattern(self) -> str:
        """The regular expression, "" when there is none."""
        return self.reg_exp or self.reg_ex or ""


class ViewParameter(Model):
    """A field of the form; ``name`` is that of a parameter of the definition."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Type", "Name")
    type: Text = Field(default=None, alias="Type")
    name: Text = Field(default=None, alias="Name")
    label: Text = Field(default=None, alias="Label")
    description: Text = Field(default=None, alias="Description")
    default_value: Text = Field(default=None, alias="DefaultValue")
    default: Text = Field(default=None, alias="Default")
    configurable: Flag = Field(default=None, alias="Configurable")
    image_tags: Texts = Field(default=(), alias="ImageTags")
    option_values: Options = Field(default=(), alias="OptionValues")
    options: Options = Field(default=(), alias="Options")
    validation: Validation | None = Field(default=None, alias="Validation")

    @property
    def initial(self) -> str | None:
        """The default, None when there is none."""
        return self.default_value if self.default_value is not None else self.default

    @property
    def choices(self) -> dict[str, str]:
        """Shown text -> value, in order."""
        return {shown: value for pair in (*self.option_values, *self.options) for shown, value in pair.items()}

    @property
    def rules(self) -> Validation:
        return self.validation or Validation()

    @property
    def required(self) -> bool:
        return self.rules.required is True


class Category(Model):
    category_name: Text = Field(default=None, alias="CategoryName")
    parameters: Many[ViewParameter] = Field(default=(), alias="Parameters")


class Section(Model):
    """A page of the portal's form."""

    title: Text = Field(default=None, alias="Title")
    categories: Many[Category] = Field(default=(), alias="Categories")


class ViewDefinition(Model):
    """The document of a `.viewdef`; texts may be ``{{Key}}`` of a `.resources` file."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Sections",)
    version: Text = Field(default=None, alias="Version")
    label: Text = Field(default=None, alias="Label")
    publisher_label: Text = Field(default=None, alias="PublisherLabel")
    description: Text = Field(default=None, alias="Description")
    default_language_code: Text = Field(default=None, alias="DefaultLanguageCode")
    sections: Many[Section] = Field(default=(), alias="Sections")

    @property
    def parameters(self) -> tuple[ViewParameter, ...]:
        """All fields in the order of the form."""
        return tuple(p for section in self.sections for category in section.categories for p in category.parameters)
