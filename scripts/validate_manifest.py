"""Validates a manifest: validate_manifest.py kubernetes|compose FILE. Needs the schemas that `validators.sh manifest` installs."""

import importlib.util
import json
import pathlib
import sys

import jsonschema
import yaml


def kubernetes(documents):
    import kubernetes_validate

    for document in documents:
        try:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{error.path}: {error.message}"


def compose(documents):
    # Not imported, because only its schema is needed.
    package = pathlib.Path(importlib.util.find_spec("check_jsonschema").origin).parent
    schema = json.loads((package / "builtin_schemas/vendor/compose-spec.json").read_text(encoding="utf-8"))
    for document in documents:
        for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(document):
            yield f"{error.json_path}: {error.message}"


with open(sys.argv[2], encoding="utf-8") as file:
    problems = list({"kubernetes": kubernetes, "compose": compose}[sys.argv[1]](list(yaml.safe_load_all(file))))
for problem in problems:
    print(problem)
sys.exit(1 if problems else 0)
