"""The types of a config's fields that choose one restorer, or several."""

from __future__ import annotations

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from splatfix.restoration.choice import RestorerChoice, format_choice, parse_choice, parse_choices

RestorerSetting = Annotated[
    str | RestorerChoice,
    PrimitiveConstructorSpec(  # one flag, --restorer NAME, in place of a subcommand for each type of the union
        nargs=1,
        metavar="NAME",
        instance_from_str=lambda arguments: parse_choice(arguments[0]),
        is_instance=lambda value: isinstance(value, str | RestorerChoice),
        str_from_instance=lambda choice: [format_choice(choice)],
    ),
]

RestorerSettings = Annotated[
    tuple[str | RestorerChoice, ...],
    PrimitiveConstructorSpec(  # --restorers a,b,c as well as --restorers a b c
        nargs="*",
        metavar="NAME,NAME,...",
        instance_from_str=parse_choices,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda choices: [format_choice(choice) for choice in choices],
    ),
]
