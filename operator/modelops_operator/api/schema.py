"""The ground of the custom resources: models whose rules Python and the API server both hold.

A rule is written once, with its CEL expression, the same in Python, and one message. `crd` writes
the expression into the schema, the models here check the Python form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from modelops_operator.api.quantities import (
    DECIMAL_PATTERN,
    DURATION_PATTERN,
    QUANTITY_PATTERN,
    format_decimal,
    format_duration,
    parse_decimal,
    parse_duration,
    parse_quantity,
)

JsonSchema = dict[str, Any]

ATOMIC: JsonSchema = {"x-kubernetes-list-type": "atomic"}
"""A list that is replaced as a whole, as those are in Kubernetes whose items have no key."""

_LONGEST_QUANTITY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule over the fields of a model, for the API server and for Python."""

    cel: str
    """The expression over `self` (and `oldSelf`) for `x-kubernetes-validations`."""
    message: str
    """Told to the person whose object breaks the rule: what is wanted, and what to write."""
    holds: Callable[[Any], bool] | None
    """The same over the parsed model; None for rules over two versions of an object."""

    def as_schema(self) -> dict[str, str]:
        """Give the item of `x-kubernetes-validations`."""
        return {"rule": self.cel, "message": self.message}


class Fields(BaseModel):
    """A part of a manifest: camelCase outside, snake_case inside, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _prune_nulls(cls, data: Any) -> Any:
        """Read a null as an absent field, which is what the API server makes of it."""
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if rule.holds and not rule.holds(self)]
        if broken:
            raise refusal("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Write the rules into the schema."""
        json_schema = handler(schema)
        if cls.rules:
            described = handler.resolve_ref_schema(json_schema)
            described["x-kubernetes-validations"] = [rule.as_schema() for rule in cls.rules]
        return json_schema

    def to_manifest(self) -> dict[str, Any]:
        """Give the plain tree of dicts, lists and scalars that the API speaks."""
        manifest: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return manifest


def keyed_by(*fields: str) -> JsonSchema:
    """Make a list a map by those fields of its items, for server-side apply and GitOps tools."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [*fields]}


def refusal(message: str) -> PydanticCustomError:
    """Give the error that pydantic reports with exactly this message."""
    return PydanticCustomError("rule", "{text}", {"text": message})


@dataclass(frozen=True, slots=True)
class DurationBetween:
    """Annotates a timedelta that is written as text like `1h30m`, with both bounds inclusive.

    Milliseconds are taken where the lower bound has them.
    """

    least: str
    most: str

    @property
    def _message(self) -> str:
        examples = "50ms, 2s or 5m" if self._fine else "30s, 5m or 1h30m"
        return f"must be a duration between {self.least} and {self.most}, such as {examples}"

    @property
    def _fine(self) -> bool:
        return "ms" in self.least

    def _read(self, value: object) -> timedelta:
        if isinstance(value, str) and "ms" in value and not self._fine:
            raise refusal(self._message)
        try:
            parsed = parse_duration(value) if isinstance(value, str) else value
        except ValueError as error:
            raise refusal(self._message) from error
        if not isinstance(parsed, timedelta) or not (
            parse_duration(self.least) <= parsed <= parse_duration(self.most)
        ):
            raise refusal(self._message)
        return parsed

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                format_duration, return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchema:
        pattern = f"{DURATION_PATTERN[:-1]}([0-9]{{1,5}}ms)?$" if self._fine else DURATION_PATTERN
        # `duration` fails on text that the pattern refuses, hence the guard before it.
        rule = (
            f"self.matches('{pattern}') && size(self) > 1 && "
            f"duration(self) >= duration('{self.least}') && "
            f"duration(self) <= duration('{self.most}')"
        )
        return {
            "type": "string",
            "minLength": 2,
            "maxLength": 18,
            "pattern": pattern,
            "x-kubernetes-validations": [{"rule": rule, "message": self._message}],
        }


@dataclass(frozen=True, slots=True)
class DecimalBetween:
    """Annotates a Decimal that is written as text like `"0.25"`, with both bounds inclusive."""

    least: str
    most: str
    example: str

    @property
    def _message(self) -> str:
        return (
            f"must be a decimal number between {self.least} and {self.most}, in quotes, "
            f'such as "{self.example}"'
        )

    def _read(self, value: object) -> Decimal:
        try:
            parsed = parse_decimal(value) if isinstance(value, str) else value
        except ValueError as error:
            raise refusal(self._message) from error
        if not isinstance(parsed, Decimal) or not (
            Decimal(self.least) <= parsed <= Decimal(self.most)
        ):
            raise refusal(self._message)
        return parsed

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                format_decimal, return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchema:
        pattern = DECIMAL_PATTERN.replace("\\", "\\\\")
        rule = (
            f"self.matches('{pattern}') && double(self) >= {Decimal(self.least):.6f} && "
            f"double(self) <= {Decimal(self.most):.6f}"
        )
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": 11,
            "pattern": DECIMAL_PATTERN,
            "x-kubernetes-validations": [{"rule": rule, "message": self._message}],
        }


def _whole_number(value: object) -> object:
    """Let through what the API server lets through: neither `2.0` nor `"2"`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refusal("must be a whole number, without quotes")
    return value


def _quantity_text(value: object) -> object:
    """Take the number form of a quantity (`cpu: 2`) as well as the text."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number else value


def _readable_quantity(text: str) -> str:
    if len(text) > _LONGEST_QUANTITY:
        raise refusal(f"must have at most {_LONGEST_QUANTITY} characters")
    try:
        parse_quantity(text)
    except ValueError as error:
        raise refusal(str(error)) from error
    return text


Integer = Annotated[int, BeforeValidator(_whole_number)]
Boolean = Annotated[bool, Strict()]
Text = Annotated[str, StringConstraints(max_length=32768)]
Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    AfterValidator(_readable_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maxLength": _LONGEST_QUANTITY,
            "pattern": QUANTITY_PATTERN,
        }
    ),
]
"""A Kubernetes quantity as its text; compare with `quantities.parse_quantity`."""
