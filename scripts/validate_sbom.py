"""Validates a bill of materials: validate_sbom.py cyclonedx|spdx FILE. Needs the validators that `validators.sh sbom` installs."""

import json
import sys


def cyclonedx(text):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    error = JsonStrictValidator(version).validate_str(text)
    return [error] if error else []


def spdx(text):
    from spdx_tools.spdx.parser.error import SPDXParsingError
    from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    try:
        document = JsonLikeDictParser().parse(json.loads(text))
    except SPDXParsingError as error:
        return error.get_messages()
    return [message.validation_message for message in validate_full_spdx_document(document)]


with open(sys.argv[2], encoding="utf-8") as file:
    problems = {"cyclonedx": cyclonedx, "spdx": spdx}[sys.argv[1]](file.read())
for problem in problems:
    print(problem)
sys.exit(1 if problems else 0)
