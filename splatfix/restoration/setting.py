"""The type of a config's field that chooses a restorer."""

from __future__ import annotations

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from splatfix.restoration.choice import RestorerChoice, format_choice, parse_choice

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
