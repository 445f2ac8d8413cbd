"""The folder that all runs of DPA share."""

import pytest

from .runs import write_inputs


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("dpa")
    write_inputs(root)
    return root
