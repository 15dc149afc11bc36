"""Licences are read as people write them, and weighed as SPDX says."""

from email.message import Message

import pytest


@pytest.fixture
def script(load_script):
    return load_script("dependency_licences")


def described(**told):
    """Metadata of a package."""
    message = Message()
    for name, values in told.items():
        for value in values if isinstance(values, list) else [values]:
            message[name.replace("_", "-")] = value
    return message


APACHE = "License :: OSI Approved :: Apache Software License"
MIT = "License :: OSI Approved :: MIT License"


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"License_Expression": "MIT OR GPL-2.0-only", "License": "BSD"}, "MIT OR GPL-2.0-only"),
        ({"Classifier": [APACHE], "License": "Copyright (c) 2015, somebody"}, "Apache-2.0"),
        ({"Classifier": [MIT, APACHE, MIT]}, "MIT AND Apache-2.0"),
        ({"Classifier": ["License :: DFSG approved", MIT]}, "MIT"),
        ({"Classifier": ["License :: OSI Approved", "Topic :: Internet"]}, None),
        ({"Classifier": ["License :: Other/Proprietary License"]}, "(Other/Proprietary License)"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "BSD 3-Clause License"}, "BSD-3-Clause"),
        ({"License": "Apache 2.0 License"}, "Apache-2.0"),
        ({"License": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT"),
        ({"License": "The MIT License (MIT)\n\nCopyright (c) 2016\n\nPermission"}, "MIT"),
        ({"License": "License of our own\n\nYou may not."}, None),
        ({"License": "GPLv2"}, "GPL-2.0-only"),
        ({"License": "UNKNOWN"}, None),
        ({"License": ""}, None),
        ({}, None),
    ],
)
def test_a_licence_is_read_where_it_is_told_best(script, told, licence):
    assert script.read_licence(described(**told)) == licence


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-2.0-or-later OR Apache-2.0", True),
        ("MIT AND GPL-2.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR GPL-2.0-only)", True),
        ("MPL-2.0 AND (AGPL-3.0-only OR GPL-2.0-only)", False),
        ("MIT OR GPL-2.0-only AND GPL-3.0-only", True),
        ("GPL-2.0-only AND GPL-3.0-only OR MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause", True),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT OR", True),
        ("", False),
        ("MIT Apache-2.0", False),
        ("(Other/Proprietary License)", False),
    ],
)
def test_an_expression_is_allowed_by_one_whole_choice(script, expression, allowed):
    assert script.is_allowed(expression) is allowed
