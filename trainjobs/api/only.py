"""When a field has an effect: said once, beside the field.

    layers: Annotated[int, Field(ge=1), only(architecture="mlp")] = Field(3, description="Hidden layers.")

From it come the problem that Python reports, the rule in CEL, and the words "Only with architecture: mlp." that end the description.
A field that would be read by nobody is refused, because whoever wrote it expects something of it. Defaults never offend: the API server
writes them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.shape import Path, attributes, element, fields, literals, members, model_of, walk

# Values of these say by themselves what they are of: "no effect with sgd", but "no effect with onLossSpike: ignore".
PLAIN = ("architecture", "name")


@dataclass(frozen=True)
class Condition:
    """That a sibling (by its attribute's name) has one of the values, or has none of them."""

    sibling: str
    values: tuple[Any, ...]
    but: bool = False

    def holds(self, part: BaseModel) -> bool:
        return (getattr(part, self.sibling) in self.values) != self.but

    def values_of(self, holder: type[BaseModel]) -> tuple[Any, ...]:
        """The values that make it true, of those that the sibling may have."""
        known = literals(holder.model_fields[self.sibling].annotation)
        return tuple(value for value in known if value not in self.values) if self.but else self.values


@dataclass(frozen=True)
class Only:
    """A field has an effect where any of the conditions holds. Several of these on one field must all allow it."""

    conditions: tuple[Condition, ...]
    because: str
    harmless: tuple[Any, ...]


def only(*, because: str = "", harmless: tuple[Any, ...] = (), **siblings: Any) -> Only:
    """The field has an effect only where a sibling has this value, or one of a tuple's values, or is not among `unless(...)`.

    Of several siblings one is enough. `because` says why others have none ("whose depth follows from the image size"), instead of advice
    to change the sibling. `harmless` are values that anybody may write, beside the default.
    """
    conditions = tuple(
        value.of(name) if isinstance(value, Unless) else Condition(name, value if isinstance(value, tuple) else (value,))
        for name, value in siblings.items()
    )
    return Only(conditions, because, harmless)


@dataclass(frozen=True)
class Unless:
    values: tuple[Any, ...]

    def of(self, sibling: str) -> Condition:
        return Condition(sibling, self.values, but=True)


def unless(*values: Any) -> Unless:
    """Any value of the sibling but these."""
    return Unless(values)


@dataclass(frozen=True)
class Effect:
    """One field of one model that has an effect only sometimes. `name` is what users write."""

    holder: type[BaseModel]
    name: str
    info: FieldInfo
    only: Only

    @property
    def words(self) -> str:
        """type: wgan-gp, or several: onNonFiniteLoss: rollback or onLossSpike: rollback."""
        return listed(f"{self.alias(each)}: {listed(map(shown, each.values_of(self.holder)))}" for each in self.only.conditions)

    @property
    def sentence(self) -> str:
        return f"Only with {self.words}."

    def rule(self, path: str) -> Rule:
        """That the field is left alone where it has no effect, for the part at a path."""
        alone = " && ".join(untouched(f"self.{self.name}", self.info.default, self.info.annotation, self.only.harmless))
        cel = " || ".join([*map(self.cel, self.only.conditions), f"({alone})" if " && " in alone else alone])
        return Rule(path, "GTJ0108", self.breaches, cel, f"{self.name} has no effect without {self.words}")

    def breaches(self, part: BaseModel) -> Iterator[Breach]:
        if any(condition.holds(part) for condition in self.only.conditions):
            return
        attribute = attributes(self.holder)[self.name]
        paths = list(touched(getattr(part, attribute), self.info.default, self.only.harmless, (self.name,)))
        if not paths:
            return
        first = self.only.conditions[0]
        value = shown(getattr(part, first.sibling))
        beside = value if self.alias(first) in PLAIN else f"{self.alias(first)}: {value}"
        other = f", {self.only.because}" if self.only.because else f"; use {listed(map(shown, first.values_of(self.holder)))}"
        for path in paths:
            how = f"take {path[-1]} out" if self.only.because else f"or take {path[-1]} out"
            yield Breach(path, f"{path[-1]} has no effect with {beside}{other}", how=how, on_key=True)

    def alias(self, condition: Condition) -> str:
        return self.holder.model_fields[condition.sibling].alias or condition.sibling

    def cel(self, condition: Condition) -> str:
        sibling, values = f"self.{self.alias(condition)}", condition.values
        if len(values) == 1:
            return f"{sibling} {'!=' if condition.but else '=='} {written(values[0])}"
        return f"{'!' if condition.but else ''}({sibling} in {written(list(values))})"


def effects(model: type[BaseModel]) -> Iterator[Effect]:
    """The fields of a model that have an effect only sometimes."""
    for name, info in fields(model).items():
        yield from (Effect(model, name, info, item) for item in info.metadata if isinstance(item, Only))


def effect_rules(root: type[BaseModel], path: str) -> tuple[Rule, ...]:
    """The rules that follow from every `only` below a model at a path."""
    holders = dict.fromkeys((".".join(field.path[:-1]), field.holder) for field in walk(root, (path,)))
    return tuple(effect.rule(place) for place, holder in holders for effect in effects(holder))


def touched(value: Any, default: Any, harmless: tuple[Any, ...], path: Path) -> Iterator[Path]:
    """Where a value differs from its default, down to single fields."""
    if isinstance(value, BaseModel) and isinstance(default, BaseModel):
        for name, attribute in attributes(type(default)).items():
            yield from touched(getattr(value, attribute), getattr(default, attribute), harmless, (*path, name))
    elif value != default and value not in harmless:
        yield path


def untouched(expression: str, default: Any, annotation: Any, harmless: tuple[Any, ...]) -> Iterator[str]:
    """In CEL, that a value is its default."""
    if default is None:
        yield f"!has({expression})"
    elif isinstance(default, BaseModel):
        for name, info in fields(type(default)).items():
            inner = getattr(default, attributes(type(default))[name])
            yield from untouched(f"{expression}.{name}", inner, info.annotation, harmless)
    elif harmless:
        yield f"{expression} in [{', '.join(written(value, annotation) for value in (*harmless, default))}]"
    else:
        yield f"{expression} == {written(default, annotation)}"


def written(value: Any, annotation: Any = None) -> str:
    """A value as CEL writes it. There 1 and 1.0 are of two types, and the type of a number is that of its field."""
    if isinstance(value, list):
        return f"[{', '.join(written(item, element(annotation)) for item in value)}]"
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, bool):
        return str(value).lower()
    return str(float(value) if float in members(annotation) else value)


def shown(value: Any) -> str:
    """A value as a manifest writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def described(effect: Effect, text: str) -> str:
    """The field's description, or that of the model it holds, and when it has an effect."""
    model = model_of(effect.info.annotation)
    return " ".join([text or (model.__doc__ if model else "") or "", effect.sentence]).strip()
