"""Fields of methods, in a process of its own: in this one, the checks of types in tests come first."""

import subprocess
import sys

import numpy as np
import pytest

from headwater.errors import OptionError
from headwater.families.fields import checked, settings_of
from headwater.methods import METHODS, method_class
from headwater.methods.dtrak import DTRAK

SCRIPT = """
from headwater.errors import OptionError
from headwater.families.fields import settings_of
from headwater.methods import METHODS, method_class

for name in METHODS:
    for field in settings_of(method_class(name)):
        try:
            method_class(name)(**{field: object()})
        except OptionError as error:
            assert str(error).startswith(f"{field} is <object"), error
            print(name, field)
"""


def test_a_field_of_a_wrong_type_is_refused_by_name_in_python_too():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    fields = [(name, field) for name in METHODS for field in settings_of(method_class(name))]
    assert [tuple(line.split()) for line in run.stdout.splitlines()] == fields


def test_a_whole_number_that_no_float_holds_is_refused():
    with pytest.raises(OptionError, match=r"^damping is 1000+; expected a number\.$"):
        DTRAK(damping=10**400)


def test_numbers_and_lists_of_numpy_are_taken_as_python_s():
    for value, plain in ((np.int64(3), 3), (np.arange(3), (0, 1, 2)), ([np.int32(1), 2], (1, 2))):
        held = checked(DTRAK, "timesteps", value)
        assert held == plain and type(held) is type(plain)
    assert type(checked(DTRAK, "damping", np.float32(0.5))) is float
