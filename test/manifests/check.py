"""Holds Kubernetes manifests against schemas: Kubernetes' own, and those of Flink's operator.

    check.py OPERATOR_JAR FILE…

Unknown fields are errors, as they would be to a strict API server. A file that breaks one on purpose must be found wrong: a
check that cannot fail proves nothing.
"""
import copy
import io
import sys
import zipfile

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.31"


def custom_schemas(jar):
    """The schemas of the operator's resources, by (apiVersion, kind), closed to unknown fields."""
    schemas = {}
    with zipfile.ZipFile(jar) as z:
        for name in z.namelist():
            if not (name.startswith("META-INF/fabric8/") and name.endswith("-v1.yml")):
                continue
            crd = yaml.safe_load(io.BytesIO(z.read(name)))
            spec = crd["spec"]
            for version in spec["versions"]:
                key = (spec["group"] + "/" + version["name"], spec["names"]["kind"])
                schemas[key] = close(version["schema"]["openAPIV3Schema"], top=True)
    return schemas


def close(schema, top=False):
    """Refuses fields that a schema does not name, where it names any."""
    if isinstance(schema, list):
        return [close(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {}
    for key, value in schema.items():
        if key == "properties":
            closed[key] = {name: close(s) for name, s in value.items()}
        elif key in ("items", "additionalProperties", "anyOf", "oneOf", "allOf"):
            closed[key] = close(value)
        else:
            closed[key] = value
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
    if "properties" in schema and "additionalProperties" not in schema and not open_ended:
        closed["additionalProperties"] = False
        if top:
            for name in ("apiVersion", "kind", "metadata"):
                closed["properties"].setdefault(name, {})
    return closed


def problem(document, schemas):
    """What is wrong with a document, or None."""
    schema = schemas.get((document.get("apiVersion"), document.get("kind")))
    try:
        if schema is not None:
            jsonschema.validate(document, schema)
        else:
            kubernetes_validate.validate(document, VERSION, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as e:
        return f"{'.'.join(str(p) for p in e.path)}: {e.message}"
    return None


def main():
    schemas = custom_schemas(sys.argv[1])
    bad = checked = 0
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as f:
            for document in yaml.safe_load_all(f):
                checked += 1
                name = f"{path}: {document['kind']} {document['metadata']['name']}"
                wrong = problem(document, schemas)
                if wrong:
                    print(f"{name}: {wrong}")
                    bad += 1
                broken = copy.deepcopy(document)
                broken.setdefault("spec", {})["replicaas"] = 1
                if document["kind"] != "ConfigMap" and not problem(broken, schemas):
                    print(f"{name}: an unknown field was not found")
                    bad += 1
    print(f"manifests: {checked} objects, {bad} wrong")
    return 1 if bad or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
